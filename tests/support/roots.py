"""Root file systems of Debian, to boot from: each is made once by mmdebstrap and kept below the user's cache directory.

A root has what an administrator would install on a server for Django sites, but not linod: that changes.

python -m tests.support.roots bookworm trixie       make those that are missing, and print where they are
"""

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 900  # seconds, also where the network is slow
UNUSED_FOR = 14 * 86400  # seconds after which a root of an older recipe is removed
DEBIAN = "http://deb.debian.org/debian"  # where the host doesn't say another mirror


@dataclass(frozen=True)
class Release:
    """A release of Debian, and the Django of the site's virtual environment on it."""

    suite: str
    python: str
    django: str


RELEASES = {
    release.suite: release
    for release in (
        Release("bookworm", python="3.11", django="~=5.2.0"),
        Release("trixie", python="3.13", django="~=6.1"),
    )
}

PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "init", "procps", "tzdata"),
    *("python3", "python3-venv", "python3-systemd", "python3-sdnotify", "python3-schedule"),
    *("python3-croniter", "python3-setproctitle"),
    *("git", "postfix", "supervisor"),
]

# The virtual environment of the demo site; other sites link to it.
ENVIRONMENT = "/srv/noi1e/env"
MODULES = ["schedule", "croniter", "setproctitle"]

FILES = {
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    # Without one, systemd would take each boot for the first and enable all that it knows.
    "etc/machine-id": "11110000111100001111000011110000\n",
    "etc/systemd/journald.conf.d/tests.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\nSyncIntervalSec=1s\n",
    # A real mail server that takes whatever comes, and puts all of it into one mailbox.
    "etc/postfix/main.cf": (
        "compatibility_level = 3.6\n"
        "myhostname = host.example.org\n"
        "inet_interfaces = loopback-only\n"
        "inet_protocols = ipv4\n"
        "mynetworks = 127.0.0.0/8\n"
        "mydestination = static:all\n"
        "local_recipient_maps =\n"
        "alias_maps =\n"
        "luser_relay = postman\n"
        "home_mailbox = Maildir/\n"
        "maillog_file =\n"
        "smtputf8_enable = yes\n"
    ),
}

ACCOUNTS = """
useradd --create-home --home-dir /var/postman --shell /usr/sbin/nologin postman
useradd --create-home --shell /bin/bash lino
useradd --create-home --shell /bin/bash stranger
systemctl --root=/ disable supervisor
systemctl --root=/ mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
"""


class CannotMakeRoot(RuntimeError):
    """A root cannot be made on this machine; says why."""


@contextmanager
def root(suite):
    """The directory of the root that sites run on, to be read only. It stays where it is until the end of the block."""
    with kept(f"{suite}-{recipe(__file__, suite)}", functools.partial(make, RELEASES[suite])) as directory:
        yield directory


@contextmanager
def kept(name, make):
    """The directory of that name; where it is missing, `make(part, log)` makes it, and it gets its name when whole."""
    directory = home() / name
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not directory.is_dir():
            # Who has to make it is alone with it; who waited finds it made.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not directory.is_dir():
                part = directory.with_name(f"{directory.name}.part")
                shutil.rmtree(part, ignore_errors=True)
                with part.with_suffix(".log").open("w") as log:
                    make(part, log)
                part.rename(directory)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(lock.name)
        remove_old_ones()
        yield directory


def home():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "linod" / "roots"


def recipe(file, suite):
    """Another text for each way of making a root, which is told by a file."""
    return hashlib.sha256(Path(file).read_bytes() + suite.encode()).hexdigest()[:12]


def make(release, part, log):
    bootstrap(release.suite, part, log, PACKAGES)
    for name, text in FILES.items():
        file = part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    call(["chroot", part, "sh", "-euc", ACCOUNTS], log)
    make_environment(release, part, log)


def bootstrap(suite, target, log, packages, *more):
    if not shutil.which("mmdebstrap"):
        raise CannotMakeRoot("There is no mmdebstrap: apt install mmdebstrap")
    # A namespace of its own: what mmdebstrap mounts is gone with it, also when it is killed.
    command = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(packages)}"]
    options = [
        *("--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*"),
        *("--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*"),
        *(f"--aptopt={option}" for option in apt_options()),
    ]
    call([*command, *options, *more, suite, target, mirror()], log)


def apt_options():
    """How this machine reaches Debian's archive: proxies, and what else its administrator has set."""
    ours = ("Acquire::IndexTargets", "Acquire::Languages", "Acquire::GzipIndexes", "Acquire::cdrom")
    lines = ask(["apt-config", "dump"]).splitlines()
    return [line for line in lines if line.startswith("Acquire::") and not line.startswith(ours) and '""' not in line]


def mirror():
    """The mirror of Debian's archive that this machine uses."""
    lines = ask(["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(SITE)"]).splitlines()
    sites = [line.split() for line in lines if line.startswith("Debian ")]
    return next((site for _origin, codename, site in sites if codename in RELEASES), DEBIAN)


def make_environment(release, target, log, modules=MODULES):
    """Make the site's virtual environment.

    This machine's pip fetches the packages, for it knows how to reach a registry; the pip in the root installs them.
    """
    wheels = target / "var/cache/wheels"
    download = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--dest", wheels]
    kinds = ["--only-binary=:all:", "--implementation=cp", f"--python-version={release.python}"]
    platforms = [f"--platform={tag}_{platform.machine()}" for tag in ("manylinux_2_28", "manylinux2014")]
    call([*download, *kinds, *platforms, f"Django{release.django}", *modules], log)
    inside = Path("/", wheels.relative_to(target))
    install = [f"{ENVIRONMENT}/bin/python", "-m", "pip", "--quiet", "install", "--no-index", "--find-links", inside]
    call(["chroot", target, "python3", "-m", "venv", ENVIRONMENT], log)
    call(["chroot", target, *install, "Django", *modules], log)
    shutil.rmtree(wheels)


def remove_old_ones():
    """Remove roots of recipes that nobody has used for long."""
    for lock_file in home().glob("*.lock"):
        if lock_file.stat().st_mtime > time.time() - UNUSED_FOR:
            continue
        with lock_file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # a system is booted from it
            for path in lock_file.parent.glob(f"{lock_file.stem}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def ask(command):
    """What a program prints; nothing where it fails or is missing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return ""


def call(command, log):
    """Run a step of the making."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    log.write(f"$ {' '.join(map(str, command))}\n")
    log.flush()
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE
    )
    if done.returncode:
        end = Path(log.name).read_text(errors="replace")[-3000:]
        raise CannotMakeRoot(f"{command[0]} failed while a root of Debian was made; all of it is in {log.name}:\n{end}")


def main():
    for suite in sys.argv[1:] or RELEASES:
        started = time.monotonic()
        with root(suite) as directory:
            print(f"{directory} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
