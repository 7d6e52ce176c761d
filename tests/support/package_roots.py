"""Roots for the tests of the Debian packages: a workshop to build them in, and servers on which linod never was.

A server has an archive of packages on its own disk, like a mirror of Debian: what linod depends on was put there when
the root was made. So `apt install` works in it without a network, and takes what apt would take.

python -m tests.support.package_roots       make those that are missing, and print where they are
"""

import functools
import shutil
from contextlib import contextmanager

from tests.support import roots

ARCHIVE = "srv/archive"
SOURCE = f"deb [trusted=yes] file:/{ARCHIVE} ./\n"
# What stands on such a server before linod comes. Its sites bring Django along.
PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "init", "procps", "tzdata"),
    *("python3", "python3-venv", "postgresql", "postfix", "git"),
]
# What may be installed during a test: all that linod could ask for, and what a site on the system's Python needs.
OFFERED = [
    *("python3-schedule", "python3-sdnotify", "python3-systemd", "python3-croniter", "python3-setproctitle"),
    *("python3-django", "python3-psycopg2", "needrestart"),
]
MODULES = ["psycopg2-binary"]  # of the virtual environment, beside Django

# Of the workshop.
TOOLS = [
    *("build-essential", "debhelper", "dh-python", "pybuild-plugin-pyproject", "python3-all", "python3-setuptools"),
    *("lintian", "man-db"),
]
# What mmdebstrap has told apt and dpkg, for its own work only.
FORGET = "rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Its database doesn't start by itself: only the tests that need it pay for it.
BEFORE_LINOD = f"""
{FORGET} /etc/apt/sources.list.d/*
systemctl --root=/ disable postgresql
"""


@contextmanager
def bare_root(suite):
    """The root of a server without linod."""
    with kept("bare", suite, functools.partial(make_bare, roots.RELEASES[suite])) as directory:
        yield directory


@contextmanager
def workshop(suite):
    """The root to build packages in."""
    with kept("workshop", suite, functools.partial(make_workshop, suite)) as directory:
        yield directory


def kept(kind, suite, make):
    recipe = roots.recipe(roots.__file__, suite) + roots.recipe(__file__, suite)
    return roots.kept(f"{suite}-{kind}-{recipe}", make)


def make_bare(release, part, log):
    # Downloaded while apt has the lists of Debian's archive still.
    download = (
        f'mkdir -p "$1/{ARCHIVE}/partial" && chroot "$1" apt-get -y --download-only'
        f" -o Dir::Cache::archives=/{ARCHIVE} install {' '.join(OFFERED)}"
    )
    roots.bootstrap(release.suite, part, log, PACKAGES, f"--customize-hook={download}")
    shutil.rmtree(part / ARCHIVE / "partial")
    for name, text in roots.FILES.items():
        file = part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    roots.call(["chroot", part, "sh", "-euc", roots.ACCOUNTS + BEFORE_LINOD], log)
    (part / "etc/apt/sources.list").write_text(SOURCE)
    roots.make_environment(release, part, log, MODULES)


def make_workshop(suite, part, log):
    roots.bootstrap(suite, part, log, TOOLS)
    roots.call(["chroot", part, "sh", "-euc", FORGET], log)


def main():
    for root in (*map(workshop, roots.RELEASES), *map(bare_root, roots.RELEASES)):
        with root as directory:
            print(directory, flush=True)


if __name__ == "__main__":
    main()
