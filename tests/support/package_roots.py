"""Roots for the tests of the Debian packages: a workshop to build them in, and systems on which linod never was.

Such a system has an archive of packages on its own disk, like a mirror of Debian: what linod depends on was put there
when the root was made. So `apt install` works in it without a network, and takes what apt would take.

python -m tests.support.package_roots       make those that are missing, and print where they are
"""

import functools
import hashlib
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.support import roots

ARCHIVE = "srv/archive"
SOURCE = f"deb [trusted=yes] file:/{ARCHIVE} ./\n"
# What stands on such a server before linod comes. Its sites bring Django along.
PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "init", "procps", "tzdata"),
    *("python3", "python3-venv", "postgresql", "postfix", "git"),
]
# All that linod could ask for. Like everything below it is installed during a test, if at all.
DEPENDENCIES = [
    *("systemd", "python3", "python3-systemd", "python3-schedule", "python3-sdnotify"),
    *("python3-croniter", "python3-setproctitle"),
]
# And what a site on the system's Python needs, what must get along with linod, and what tests packages.
OFFERED = [*DEPENDENCIES, "python3-django", "python3-psycopg2", "needrestart", "autopkgtest"]
MODULES = ["psycopg2-binary"]  # of the virtual environment, beside Django

# Of the workshop.
TOOLS = [
    *("build-essential", "debhelper", "dh-python", "pybuild-plugin-pyproject", "python3-all", "python3-setuptools"),
    *("lintian", "man-db", "piuparts", "adequate"),
]
# What mmdebstrap has told apt and dpkg, for its own work only.
FORGET = "rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Only the tests that need it pay for it.
WITHOUT_POSTGRESQL = "systemctl --root=/ disable postgresql\n"


@contextmanager
def bare_root(suite):
    """The root of a server without linod."""
    with kept("bare", suite, functools.partial(make_bare, roots.RELEASES[suite])) as directory:
        yield directory


@contextmanager
def minimal_root(suite):
    """The root of a system with apt and hardly anything else, so that nothing is there by chance."""
    with kept("minimal", suite, functools.partial(make_minimal, suite)) as directory:
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
    make_offering(release.suite, part, log, PACKAGES, OFFERED)
    for name, text in roots.FILES.items():
        file = part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    roots.call(["chroot", part, "sh", "-euc", roots.ACCOUNTS + WITHOUT_POSTGRESQL], log)
    roots.make_environment(release, part, log, MODULES)


def make_minimal(suite, part, log):
    # Whole, for where a documentation is missing its links lead nowhere.
    whole = [f"--dpkgopt=path-include=/usr/share/{name}/*" for name in ("man", "locale", "doc")]
    make_offering(suite, part, log, ["apt"], DEPENDENCIES, *whole)


def make_offering(suite, part, log, packages, offered, *more):
    """Make a root with some packages, and with an archive of others as the only one that its apt knows."""
    # Downloaded while apt has the lists of Debian's archive still.
    download = (
        f'mkdir -p "$1/{ARCHIVE}/partial" && chroot "$1" apt-get -y --download-only'
        f" -o Dir::Cache::archives=/{ARCHIVE} install {' '.join(offered)}"
    )
    roots.bootstrap(suite, part, log, packages, f"--customize-hook={download}", *more)
    shutil.rmtree(part / ARCHIVE / "partial")
    roots.call(["chroot", part, "sh", "-euc", f"{FORGET} /etc/apt/sources.list.d/*"], log)
    (part / "etc/apt/sources.list").write_text(SOURCE)
    add_to_list(part / ARCHIVE, (part / ARCHIVE).glob("*.deb"))


def add_to_list(archive, packages):
    """Add packages in an archive to the list of them, which apt reads."""
    paragraphs = []
    for package in sorted(map(Path, packages)):
        control = subprocess.run(["dpkg-deb", "--field", package], check=True, capture_output=True, text=True).stdout
        checksum = hashlib.sha256(package.read_bytes()).hexdigest()
        place = f"Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {checksum}\n"
        paragraphs.append(control.rstrip("\n") + "\n" + place + "\n")
    with (archive / "Packages").open("a") as file:
        file.writelines(paragraphs)


def make_workshop(suite, part, log):
    roots.bootstrap(suite, part, log, TOOLS)
    roots.call(["chroot", part, "sh", "-euc", FORGET], log)


def made(kind, suite):
    with kind(suite) as directory:
        return directory


def main():
    # Both releases at a time, for much of it is waiting. What piuparts needs is made when it is asked for.
    with ThreadPoolExecutor() as pool:
        for kind in (workshop, bare_root):
            for directory in pool.map(functools.partial(made, kind), roots.RELEASES):
                print(directory, flush=True)


if __name__ == "__main__":
    main()
