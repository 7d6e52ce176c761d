"""A server for Django sites on which linod was never installed, and the means to install it as an administrator does.

with BareServer("trixie", packages) as server:      # a directory with linod's packages, which its apt finds
    server.apt("install linod")
"""

import shutil

from tests.support.package_roots import ARCHIVE, add_to_list, bare_root
from tests.support.server import Server

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"


class BareServer(Server):
    """A machine without linod, whose apt finds linod's packages of a directory."""

    def __init__(self, suite, packages):
        super().__init__(suite)
        self.packages = packages

    def lower(self):
        return bare_root(self.suite)

    def prepare(self):
        self.offer(self.packages)

    def offer(self, packages):
        """Let apt find the packages of a directory from now on, beside those that it found before."""
        archive = self.root / ARCHIVE
        add_to_list(archive, [shutil.copy(package, archive) for package in packages.glob("*.deb")])
        if self.is_on():
            self.run("apt-get -qq update")
        else:
            self.inside("apt-get", "-qq", "update")

    def link(self, site):
        """Give a site to its owner, and add it as an administrator does."""
        self.run(f"chown --no-dereference --recursive {site.owner}: {site.directory}")
        site.told = self.ask(f"linodctl add {site.name} {site.directory}")
        self.sites[site.name] = site
        return site

    def apt(self, arguments, **options):
        """Run apt-get as it is run by a script; returns the same as `run`."""
        return self.run(f"{INSTALL} {arguments}", **{"timeout": 300} | options)

    def installed(self, package):
        """The version of an installed package, None where it is not."""
        shown = self.run(f"dpkg-query -W -f '${{db:Status-Status}} ${{Version}}' {package}", check=False).stdout
        status, _, version = shown.partition(" ")
        return version if status == "installed" else None

    def files(self, *left_out):
        """All that is on its disk: path -> kind, mode, owner, group, target, and what tells that a file was changed."""
        pruned = r"\( " + " -o ".join(f"-path '{path}'" for path in left_out) + r" \) -prune -o"
        look = (
            f"find / -xdev {pruned} -printf '%p\\t%y %m %u %g %l\\n'",
            # Nobody changes a file there without changing its time; elsewhere files are written anew as they were.
            f"find /usr -xdev {pruned} -type f -printf '%p\\t%s %T@\\n'",
            f"find / -xdev -path /usr -prune -o {pruned} -type f -exec sha256sum {{}} +"
            r" | sed 's/^\([0-9a-f]*\)  \(.*\)/\2\t\1/'",
        )
        found = {}
        for line in self.ask(" && ".join(look), timeout=120).splitlines():
            path, _, told = line.partition("\t")
            found[path] = f"{found.get(path, '')} {told}".strip()
        return found
