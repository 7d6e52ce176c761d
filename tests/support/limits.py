"""Take away from a process what it needs, while it runs. Needs root, or sudo."""

import contextlib
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from .disk import SUDO, as_root

CGROUPS = Path("/sys/fs/cgroup")


LIMIT = """
import resource, sys
pid, name, soft = int(sys.argv[1]), getattr(resource, sys.argv[2]), int(sys.argv[3])
print(*resource.prlimit(pid, name), flush=True)
resource.prlimit(pid, name, (soft, resource.prlimit(pid, name)[1]))
"""


def limit(pid, name, soft):
    """Give a running process another soft limit, as "RLIMIT_NOFILE"; returns the former one."""
    command = [*as_owner_of(pid), "/usr/bin/python3", "-c", LIMIT, pid, name, soft]
    told = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(told.split()[0])


def as_owner_of(pid):
    """The beginning of a command that is the same user as a process: nobody else may limit it, in some containers."""
    words = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid, gid = words["Uid"].split()[0], words["Gid"].split()[0]
    if int(uid) == os.geteuid():
        return []
    return [*SUDO, "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]


@contextmanager
def limited(pid, name, soft):
    """Within the block, a running process has this soft limit."""
    before = limit(pid, name, soft)
    try:
        yield
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it has ended meanwhile
            limit(pid, name, before)


def descriptors(pid):
    """How many descriptors a process would have if there were no gaps between their numbers."""
    return 1 + max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def memory_of(pids, mebibytes):
    """Within the block, processes and those that they will start have so much memory together."""
    first = CGROUPS / "memory"
    old = (first / "memory.limit_in_bytes").exists()
    if not old:
        write(CGROUPS / "cgroup.subtree_control", "+memory")
    group = (first if old else CGROUPS) / f"linod-test-memory-{os.getpid()}"
    as_root("mkdir", group)
    try:
        write(group / ("memory.limit_in_bytes" if old else "memory.max"), mebibytes << 20)
        for pid in pids:
            write(group / "cgroup.procs", pid)
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(subprocess.CalledProcessError):  # it has ended meanwhile
                write(group.parent / "cgroup.procs", pid)
        as_root("rmdir", group)


def write(path, value):
    subprocess.run([*SUDO, "tee", path], input=f"{value}\n", text=True, stdout=subprocess.DEVNULL, check=True)
