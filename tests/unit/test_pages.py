"""The pages as they are installed: what one of them leads to is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_an_installed_page_leads_to_is_installed(tmp_path: Path) -> None:
    subprocess.run(["make", "--silent", "install", f"DESTDIR={tmp_path}"], cwd=ROOT, check=True, timeout=60)
    pages = sorted((tmp_path / "usr/share/doc/linod").glob("*.md"))
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text())]
    assert len(links) > 20
    assert not [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()]
