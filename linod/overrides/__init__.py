"""/etc/linod/SITE.toml: the administrator's word, which overrides the developer's.

    python = "env/bin/python"        # the site's interpreter, here relative to the site's directory
    settings = "myprj.settings"      # DJANGO_SETTINGS_MODULE
    use_linod = true
    max_parallel = 2                 # and every other setting of linod, see conf.py

    [alert]                          # whom to tell that the site or a task has failed, and how
    to = ["admin@example.org"]

    [tasks.checkdata]                # the function's name, or "module.function"
    at = "03:00"                     # a whole new schedule: every, at or cron
    timeout = 600                    # and those policies that need no knowledge of the code

Daemon, linodctl and site all read it with `read`; the site changes its tasks with `apply`. `document.py` knows TOML and
lines, `reading.py` and `checks.py` what may be written, `values.py` what it does.
"""

from .reading import of_directory, problems, read
from .values import Alert, Overrides, TaskOverrides, apply

__all__ = ["Alert", "Overrides", "TaskOverrides", "apply", "of_directory", "problems", "read"]
