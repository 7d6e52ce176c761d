"""The fork server that `manage.py linod` forks before it becomes the daemon may be gone when the daemon looks."""

from linod.runs import Outcome
from tests.support.site import Site

# The first process that is forked from the loaded site ends at once.
TASKS = """
import os
import linod

def end_once():
    if os.path.exists("fragile"):
        os.unlink("fragile")
        os._exit(7)

os.register_at_fork(after_in_child=end_once)

@linod.task(every=1)
def ping():
    pass
"""


def test_a_fork_server_that_ends_before_the_daemon_is_there_is_replaced(tmp_path):
    site = Site(tmp_path, TASKS)
    site.write("fragile")
    with site.daemon() as daemon:
        daemon.wait_for("The site cannot be loaded: While loading, its process left with exit status 7.")
        [run, *_] = site.wait_for_runs("ping")
        assert run.outcome is Outcome.SUCCEEDED
        assert daemon.terminate() == 0
