"""Build linod's Debian packages in a Debian of their own, as a build daemon would, and examine them there.

python -m tests.support.workshop DIRECTORY [SUITE]      build the packages of this checkout, and show lintian's report
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.package_roots import workshop

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"  # what is built there installs on later releases as well
BUILT = ROOT / "build" / "packages"
KEPT = 6  # of what was built there
LIMIT = 400  # seconds, on a busy machine

# The root stays as it is: what is changed is in memory, and gone at the end. What the workshop is lent is in /mnt.
IN_WORKSHOP = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount --rbind /dev /mnt/root/dev
[ -z "$5" ] || mount --bind "$5" /mnt/root/mnt
cp -a "$2/." /mnt/root/build
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 chroot /mnt/root sh -euc "cd /build; $4"
find /mnt/root/build -maxdepth 1 -type f -exec cp --target-directory="$3" {} +
"""
BUILD = "(cd linod && dpkg-buildpackage --no-sign) >build.log 2>&1 || { cat build.log; exit 1; }"
EXAMINE = "lintian --display-info --pedantic --show-overrides --tag-display-limit 0 *.changes >lintian.txt 2>&1 || true"


class CannotBuild(RuntimeError):
    """The packages cannot be built; shows why."""


def built(place):
    """A directory with the packages of the source tree `place`/linod, built unless that was done before."""
    target = BUILT / fingerprint(place)
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            remove_old_ones()
            part = target.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            build(place, part)
            part.rename(target)
        os.utime(target)
    return target


def fingerprint(place):
    """Another text for each content of a directory."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(Path(place).rglob("*")):
        digest.update(f"{path.relative_to(place)} {path.lstat().st_mode}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def remove_old_ones():
    """Of what was built before, keep what was used last."""
    directories = sorted((path for path in BUILT.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in directories[:-KEPT]:
        shutil.rmtree(path)


def build(place, target, suite=SUITE):
    """Build packages of the source tree `place`/linod into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    work_in_workshop(suite, place, target, BUILD)


def examine(packages, suite=SUITE):
    """What lintian has to say of the packages in a directory."""
    with tempfile.TemporaryDirectory() as result:
        work_in_workshop(suite, packages, result, EXAMINE)
        return (Path(result) / "lintian.txt").read_text()


def work_in_workshop(suite, source, target, command, lent=""):
    """Run a command in a copy of a directory, without a network, and fetch the files that are in it then."""
    with workshop(suite) as root:
        alone = ["nice", "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        done = subprocess.run(
            [*alone, "sh", "-euc", IN_WORKSHOP, "sh", root, source, target, command, lent],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
    if done.returncode:
        raise CannotBuild(f"exit status {done.returncode} of: {command}\n{done.stdout[-8000:]}")


def copy_checkout(target):
    """Copy what git knows of this checkout, or would add."""
    listing = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def rename_version(source, version):
    """Let a source tree be that of another version."""
    module, changelog = source / "linod/__init__.py", source / "debian/changelog"
    module.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', module.read_text()))
    before = changelog.read_text()
    sign_off = next(line for line in before.splitlines() if line.startswith(" -- "))
    changelog.write_text(f"linod ({version}) unstable; urgency=medium\n\n  * Later.\n\n{sign_off}\n\n{before}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        copy_checkout(Path(place) / "linod")
        build(place, Path(sys.argv[1]), *sys.argv[2:3])
    print(examine(sys.argv[1], *sys.argv[2:3]))
