"""A host of the test's own: its /etc/linod, /var/lib/linod and /run/linod, seen by the processes that it starts.

host = Host(tmp_path)
host.add("myprj", site)                        # as linodctl add does: a link, here to the directory of a Site
host.override("myprj", "max_parallel = 2")     # /etc/linod/myprj.toml
with site.daemon() as daemon:                  # from now on all commands of that Site run on this host
    ...
subprocess.run(host.command([sys.executable, "-m", "linod.ctl", "sites"]), ...)
"""

import os
from pathlib import Path
from textwrap import dedent

# A mount needs a place. Where the real host has none, the directory above it moves below /mnt, and links to all that it
# has take its place. All of this is seen by this process and by what it starts, and ends with them.
LAY = """
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
lay() {
    if [ ! -d "$2" ]; then
        above=$(dirname "$2")
        mkdir -p "/mnt$above"
        mount --rbind "$above" "/mnt$above"
        mount -t tmpfs -o mode=755 tmpfs "$above"
        find "/mnt$above" -mindepth 1 -maxdepth 1 -exec ln -s -t "$above" {} +
        mkdir "$2"
    fi
    mount --bind "$1" "$2"
}
lay "$1" /etc/linod
lay "$2" /var/lib/linod
lay "$3" /run/linod
shift 3
exec "$@"
"""


class Host:
    """Three directories below `path`, and commands that find them where linod expects them.

    `etc`, `var` and `run` are /etc/linod, /var/lib/linod and /run/linod: real directories, which a test reads and
    writes at any time, also while a daemon runs. The real host's are neither read nor changed. Several commands share
    them, so a linodctl finds the daemon that another command has started.
    """

    def __init__(self, path):
        self.path = Path(path).resolve() / "host"
        self.etc, self.var, self.run = (self.path / name for name in ("etc", "var", "run"))
        for directory in (self.etc / "sites", self.var, self.run):
            directory.mkdir(parents=True)

    def add(self, name, site):
        """Make a directory, or a Site of the tests, a site of this host. A Site then runs all its commands here."""
        directory = getattr(site, "path", site)
        (self.etc / "sites" / name).symlink_to(directory)
        if directory is not site:
            site.host, site.name = self, name

    def override(self, name, text):
        """Write the administrator's file for a site; its common indentation is removed. Returns its real path."""
        path = self.etc / f"{name}.toml"
        path.write_text(dedent(text))
        return path

    def command(self, argv):
        """The command that runs `argv` on this host, under the same pid and the same user. It ends with the test."""
        lay = ["sh", "-c", LAY, "sh", *map(str, (self.etc, self.var, self.run))]
        # The last step of each: a change of namespace forgets that the process is to end with the test.
        end = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)]
        if os.geteuid() == 0:
            return ["unshare", "--mount", "--", *lay, *end]
        # Only root may mount, so the user becomes the root of a namespace, and afterwards itself again.
        back = ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--"]
        return ["unshare", "--user", "--map-root-user", "--mount", "--", *lay, *back, *end]
