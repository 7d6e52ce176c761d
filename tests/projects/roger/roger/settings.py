"""Settings of roger: nothing here says USE_LINOD, so the site doesn't use linod."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "a demo site keeps no secrets"

INSTALLED_APPS = [
    "linod",
    "roger.contacts",
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "var" / "db.sqlite3",
    }
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TIME_ZONE = "Europe/Brussels"
USE_TZ = True
