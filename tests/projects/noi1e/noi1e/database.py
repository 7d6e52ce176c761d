"""Which database the site uses, from one line of text."""

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "mariadb": "django.db.backends.mysql",
}


def database(spec):
    """Return the settings for `spec`: the path of an SQLite file, or SCHEME://USER:PASSWORD@HOST:PORT/NAME.

    The scheme is postgresql, mariadb or mysql. A Unix socket is given as `?host=/path`.
    """
    url = urlsplit(str(spec))
    if not url.scheme:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(spec),
            # Seconds that a writer waits for another; the five of SQLite are few beside a daemon and a web server.
            "OPTIONS": {"timeout": 30},
        }
    options = {"connect_timeout": 5}
    if url.scheme != "postgresql":
        use_mysql_driver()
        options["charset"] = "utf8mb4"
    return {
        "ENGINE": ENGINES[url.scheme],
        "NAME": url.path.lstrip("/"),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": dict(parse_qsl(url.query)).get("host", url.hostname or ""),
        "PORT": str(url.port or ""),
        "CONN_MAX_AGE": 600,
        "OPTIONS": options,
    }


def use_mysql_driver():
    """Let PyMySQL stand in where mysqlclient isn't installed."""
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        import pymysql

        # Django asks for at least this version of mysqlclient.
        pymysql.version_info = (2, 2, 1, "final", 0)
        pymysql.install_as_MySQLdb()
