"""linod as a Django app: for its management command and its system checks. It has no models.

The label is not `linod`, which an app of current Lino has.
"""

from django.apps import AppConfig


class LinodConfig(AppConfig):
    """Registers the checks."""

    name = "linod"
    label = "linod_service"
    verbose_name = "linod"

    def ready(self) -> None:
        from . import checks  # noqa: F401
