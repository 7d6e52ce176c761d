"""What there is to test with this Python: Django 3.2 knows none newer than 3.11."""

from tests.support.lino import KINDS

collect_ignore = [f"test_{kind}.py" for kind in ("2021", "2026") if kind not in KINDS]
