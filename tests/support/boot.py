"""A Debian of the test's own, booted with systemd as PID 1 in a container with a cgroup and a disk of its own.

with Machine("trixie") as machine:
    machine.run("systemctl start something")
    machine.reboot()

Everything of it ends with this process, however that ends: its processes are in a PID namespace whose first process
dies with ours, and the kernel ends the others with that; mounts are made in a namespace of this process. Only an empty
cgroup may stay, which the next machine removes.
"""

import contextlib
import ctypes
import functools
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from linod.linux import birth, descendants, die_with_parent
from tests.support import roots

PATIENCE = 60.0  # seconds, also on a busy machine
PAUSE = 0.02
PREFIX = "linod-test"  # of cgroups
CLONE_NEWNS = 0x20000
POWER_OFF = signal.SIGRTMIN + 4  # as systemd(1) has it

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}


class CannotBoot(RuntimeError):
    """This computer, or the root file system, is not fit for booting; says why."""


class CommandFailed(AssertionError):
    """A command in the machine ended with another exit status than 0; shows what it wrote."""


class Machine:
    """A machine that is switched on for as long as the `with` block lasts. Its only network is its own loopback."""

    def __init__(self, suite):
        self.suite = suite
        self.name = f"{suite}-{next(numbers)}"
        # Where it lives: two machines in one cgroup would fight over what is in it.
        cgroup = f"{PREFIX}-{os.getpid()}-{birth(os.getpid())}-{self.name}"
        self.cgroups = [hierarchy / cgroup for hierarchy in hierarchies()]
        self.power = None  # the process with which all of it ends
        self.leader = 0  # its PID 1, as this process sees it

    def __enter__(self):
        require_what_is_needed()
        remove_leftovers()
        with contextlib.ExitStack() as stack:
            self.root = self.lay_disk(stack)
            stack.callback(self.kill)
            self.prepare()
            self.boot()
            self.resources = stack.pop_all()
        return self

    def __exit__(self, kind, *_exception):
        try:
            if kind is None and self.is_on():
                self.power_off()
        finally:
            self.resources.close()

    def lay_disk(self, stack):
        """Lay a disk of its own over a root that all share; returns where it is mounted."""
        lower = stack.enter_context(self.lower())
        home = own_mounts() / self.name
        stack.callback(shutil.rmtree, home)
        upper, work, merged = (home / name for name in ("upper", "work", "merged"))
        for directory in (upper, work, merged):
            directory.mkdir(parents=True)
        mount("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay", merged)
        stack.callback(subprocess.run, ["umount", merged], check=True)
        self.console = home / "console"
        return merged

    def lower(self):
        """The root below, as a block that yields its directory."""
        return roots.root(self.suite)

    def prepare(self):
        """Change files below `self.root` before the first boot."""

    # On and off

    def boot(self):
        """Switch it on, and wait until all that is started at boot has been started."""
        for cgroup in self.cgroups:
            cgroup.mkdir(exist_ok=True)
        tests = os.getpid()

        def settle():
            die_with_parent(tests)
            for cgroup in self.cgroups:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))

        # Alone, systemd-nspawn would leave PID 1 behind when it is killed.
        outlet = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=unchanged"]
        command = ["systemd-nspawn", "--quiet", "--directory", self.root, "--boot", "--machine", self.name]
        options = ["--register=no", "--keep-unit", "--settings=no", "--console=pipe", "--link-journal=no"]
        network = ["--private-network", "--resolv-conf=off", "--timezone=off"]
        with self.console.open("ab") as console:
            self.power = subprocess.Popen(
                [*outlet, *command, *options, *network],
                # Pure cgroup v2, as Debian 12 and 13 have it, whatever this computer has.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=settle,
            )
        self.wait_until_up()

    def wait_until_up(self):
        deadline = time.monotonic() + PATIENCE
        state = ""
        while state not in ("running", "degraded"):
            if not self.is_on() or time.monotonic() > deadline:
                raise CannotBoot(f"{self.suite} does not boot. Its console:\n{self.console_text()}")
            time.sleep(PAUSE)
            self.leader = next((pid for pid in descendants(self.power.pid) if program_name(pid) == "systemd"), 0)
            if self.leader:
                state = self.run("systemctl is-system-running --wait", check=False, timeout=PATIENCE).stdout.strip()

    def is_on(self):
        return self.power is not None and self.power.poll() is None

    def power_off(self):
        """Shut it down as an administrator would."""
        os.kill(self.leader, POWER_OFF)
        try:
            self.power.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It does not power off. Its console:\n{self.console_text()}") from None

    def reboot(self):
        """Shut it down, and boot it again from the same disk."""
        self.power_off()
        self.boot()

    def kill(self):
        """Pull the plug."""
        if self.is_on():
            self.power.kill()
            self.power.wait(PATIENCE)
        remove_cgroups(self.cgroups)

    def console_text(self):
        return self.console.read_text(errors="replace")[-4000:]

    # In it

    def start(self, command, user="root", **options):
        """Start a command for the shell in the machine; options are those of subprocess.Popen."""
        return subprocess.Popen(self.enter(command, user), **{"text": True, "stdin": subprocess.DEVNULL} | options)

    def run(self, command, user="root", check=True, timeout=PATIENCE, input=None):
        """Run a command in the machine's shell, as that user; CommandFailed where it fails, unless check=False."""
        done = subprocess.run(
            self.enter(command, user),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )
        if check and done.returncode:
            raise CommandFailed(f"exit status {done.returncode} of: {command}\n{done.stdout}{done.stderr}")
        return done

    def ask(self, command, **options):
        """What a command prints, without the last line break."""
        return self.run(command, **options).stdout.rstrip("\n")

    def enter(self, command, user):
        become = [] if user == "root" else ["--reuid", user, "--regid", user, "--init-groups"]
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return [
            *("nsenter", "--all", "--root", "--wd", "--target", str(self.leader), "env", "--ignore-environment"),
            *environment,
            # Who changes the user loses the death signal; so it is asked for after that.
            *("setpriv", *become, "setpriv", "--pdeathsig", "KILL", "bash", "-c", command),
        ]

    def wait(self, condition, timeout=PATIENCE):
        """Wait until a function returns something true, and return that; or until a command succeeds."""
        ask = condition if callable(condition) else lambda: self.run(condition, check=False).returncode == 0
        deadline = time.monotonic() + timeout
        while not (result := ask()):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {condition}"
            time.sleep(PAUSE)
        return result

    # Files

    def write(self, path, text, owner="root", mode=None):
        """Write a file, and make the directories above it."""
        place, above = shlex.quote(str(path)), shlex.quote(os.path.dirname(path))
        change = f" && chmod {mode} {place}" if mode else ""
        self.run(f"mkdir -p {above} && cat > {place} && chown {owner} {place}{change}", input=text)

    def read(self, path):
        return self.run(f"cat {shlex.quote(str(path))}").stdout

    def exists(self, path):
        return self.run(f"test -e {shlex.quote(str(path))}", check=False).returncode == 0


numbers = iter(range(1, 1_000_000))


def program_name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)


def require_what_is_needed():
    """Raises CannotBoot where this computer lacks something."""
    if os.geteuid() != 0:
        raise CannotBoot("Only root can boot a system: make system calls sudo, or run pytest as root.")
    packages = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "nsenter": "util-linux"}
    if missing := [package for program, package in packages.items() if not shutil.which(program)]:
        raise CannotBoot(f"Programs are missing: apt install {' '.join(missing)}")
    if not hierarchies():
        raise CannotBoot("There is no cgroup v2 hierarchy below /sys/fs/cgroup.")
    if "overlay" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "overlay"], capture_output=True)
    if "overlay" not in Path("/proc/filesystems").read_text():
        raise CannotBoot("This kernel has no overlay file system.")


@functools.cache
def own_mounts():
    """Have this process mount things for itself alone; returns a directory in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise CannotBoot(f"No mount namespace: {os.strerror(ctypes.get_errno())}. Is this an unprivileged container?")
    mount("--make-rprivate", "/")
    home = roots.home().parent / "booted"
    home.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", home)
    return home


# cgroups


@functools.cache
def hierarchies():
    """Where cgroups are made: cgroup v2, and beside it the named hierarchy of systemd where a host still has that."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, place, kind, options, *_ = line.split()
        if place.startswith("/sys/fs/cgroup") and (kind == "cgroup2" or "name=systemd" in options.split(",")):
            found.append(Path(place))
    return found


def remove_leftovers():
    """Remove the cgroups of tests that were killed, and what might be alive in them."""
    for hierarchy in hierarchies():
        for cgroup in hierarchy.glob(f"{PREFIX}-*"):
            _, _, pid, born, *_ = cgroup.name.split("-")
            if str(birth(int(pid))) != born:
                remove_cgroups([cgroup])


def remove_cgroups(cgroups):
    """Kill all that is in some cgroups, and remove them with all below them."""
    deadline = time.monotonic() + PATIENCE
    for cgroup in cgroups:
        while cgroup.exists():
            for directory, _, _ in os.walk(cgroup, topdown=False):
                remove_cgroup(Path(directory))
            if time.monotonic() > deadline:
                raise RuntimeError(f"{cgroup} cannot be removed.")
            time.sleep(PAUSE)


def remove_cgroup(cgroup):
    with contextlib.suppress(OSError):  # it is gone already; or what was killed takes a moment to end
        for pid in (cgroup / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        cgroup.rmdir()
