"""A local git repository for the site to read."""

from noi1e.repos.git import git, tip

COMMITS = 40
FIRST_COMMIT = 1_700_000_000  # seconds since the epoch


def create_repository(path):
    """Create a bare repository with the same commits each time, unless it has some already."""
    path.mkdir(parents=True, exist_ok=True)
    # An empty template, because the hooks of this machine are none of our business.
    git(path, "init", "--quiet", "--bare", "--template=", "--initial-branch=main")
    if not tip(path):
        git(path, "fast-import", "--quiet", input="".join(map(commit, range(1, COMMITS + 1))))


def commit(number):
    """Return the lines that make `git fast-import` write one commit."""
    # Every tenth names a ticket that doesn't exist, for the checkers to find.
    ticket = 100_000 + number if number % 10 == 0 else number
    text = f"Work on ticket #{ticket}"
    return (
        "commit refs/heads/main\n"
        f"committer Robin <robin@example.com> {FIRST_COMMIT + number * 86400} +0200\n"
        f"data {len(text)}\n{text}\n"
        f"M 100644 inline notes.txt\ndata {len(text)}\n{text}\n"
    )
