"""A small disk of a test's own, which can be full, hang, or break. Needs root, or sudo."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

SUDO = [] if os.geteuid() == 0 else ["sudo", "-n"]


def as_root(*command):
    subprocess.run([*SUDO, *map(str, command)], check=True)


class Disk:
    """A mounted file system, for the user of the tests: ext4 on a file of some MiB, or in memory.

    `image`: a file that has one already.

    with Disk(tmp_path / "disk", mebibytes=16) as disk:
        disk.fill()
        disk.hang()
        disk.answer()
    """

    def __init__(self, path, mebibytes=0, kind="ext4", image=None):
        self.path, self.kind = Path(path), kind
        self._mebibytes = mebibytes
        self._image = image or self.path.with_name(f"{self.path.name}.img")
        self._hangs = False

    def __enter__(self):
        self.path.mkdir(exist_ok=True)
        owner = f"{os.geteuid()}:{os.getegid()}"
        if self.kind == "tmpfs":
            as_root("mount", "-t", "tmpfs", "-o", f"size={self._mebibytes * 1024}k", "tmpfs", self.path)
        else:
            if not self._image.exists():
                with self._image.open("wb") as file:
                    file.truncate(self._mebibytes << 20)
                subprocess.run(["/sbin/mkfs.ext4", "-q", self._image], check=True)
            as_root("mount", "-o", "loop,errors=remount-ro", self._image, self.path)
        as_root("chown", owner, self.path)
        return self

    def __exit__(self, *exception):
        self.answer()
        as_root("umount", "-l", self.path)
        with contextlib.suppress(FileNotFoundError):
            self._image.unlink()

    def fill(self):
        """Leave not one byte to others."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def make_room(self):
        (self.path / "ballast").unlink()

    def cut_power(self, image):
        """Keep in another file what would be left if the power failed now: nothing that is still in memory."""
        shutil.copyfile(self._image, image)

    def hang(self):
        """Whoever writes there waits, as while a snapshot is taken, or until a storage network is back."""
        as_root("/sbin/fsfreeze", "--freeze", self.path)
        self._hangs = True

    def answer(self):
        """End that."""
        if self._hangs:
            self._hangs = False
            as_root("/sbin/fsfreeze", "--unfreeze", self.path)

    def fail(self):
        """As with an error of the disk itself: from now on it can only be read."""
        with open("/proc/self/mountinfo") as mounts:
            number = next(line.split()[2] for line in mounts if line.split()[4] == str(self.path))
        device = Path(f"/sys/dev/block/{number}").resolve().name
        subprocess.run(
            [*SUDO, "tee", f"/sys/fs/ext4/{device}/trigger_fs_error"],
            input=b"a test\n",
            stdout=subprocess.DEVNULL,
            check=True,
        )
