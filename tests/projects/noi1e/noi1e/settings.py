"""Settings of noi1e.

Everything that changes while the site runs lies below var/. Tests and administrators move it, and choose database and
mail server, with the NOI1E_* variables; an administrator's own settings go into local_settings.py beside this file.
"""

import os
from pathlib import Path

from noi1e.database import database

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("NOI1E_VAR", BASE_DIR / "var"))

SECRET_KEY = "a demo site keeps no secrets"

USE_LINOD = True

# The order of the apps is the order in which `manage.py linod --list` shows their tasks:
# first those of all models modules, then those of all tasks modules.
INSTALLED_APPS = [
    "linod",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "noi1e.users",
    "noi1e.summaries",
    "noi1e.checkdata",
    "noi1e.tickets",
    "noi1e.notify",
    "noi1e.repos",
    "noi1e.demo",
]

AUTH_USER_MODEL = "users.User"

DATABASES = {"default": database(os.environ.get("NOI1E_DATABASE", VAR_DIR / "db.sqlite3"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TIME_ZONE = "Europe/Tallinn"
USE_TZ = True

EMAIL_HOST = os.environ.get("NOI1E_EMAIL_HOST", "localhost")
EMAIL_PORT = int(os.environ.get("NOI1E_EMAIL_PORT", "25"))
# Seconds; without it a mail server that doesn't answer would hold the task for ever.
EMAIL_TIMEOUT = 10
SERVER_EMAIL = "noi1e@noi1e.example.com"
EMAIL_SUBJECT_PREFIX = "[noi1e] "
# The right-hand side of every Message-ID.
MAIL_DOMAIN = "noi1e.example.com"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "console": {"format": "%(levelname)s %(message)s"},
        "file": {"format": "%(asctime)s %(levelname)s [%(module)s %(process)d %(thread)d] : %(message)s"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "console",
        },
    },
    "loggers": {
        "noi1e": {"handlers": ["console"], "level": "INFO"},
    },
}

# As on a production server: whoever creates the directory gets a log file.
if (BASE_DIR / "log").is_dir():
    LOGGING["handlers"]["file"] = {
        "class": "logging.handlers.WatchedFileHandler",
        "filename": BASE_DIR / "log" / "noi1e.log",
        "encoding": "utf-8",
        "formatter": "file",
    }
    LOGGING["loggers"]["noi1e"]["handlers"].append("file")

try:
    from .local_settings import *  # noqa: F403
except ModuleNotFoundError as error:
    if error.name != "noi1e.local_settings":
        raise
