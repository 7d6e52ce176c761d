"""What becomes of mails that the sites queue, where old and new ones do the same."""

import pytest

from tests.support.lino import KINDS, LinoSite


@pytest.mark.parametrize("kind", KINDS)
def test_a_mail_server_that_is_down_is_seen_in_the_output(tmp_path, kind):
    """Lino's own code catches the error and marks the mail as sent, so that the run succeeds."""
    site = LinoSite(tmp_path, kind)
    site.sql("UPDATE users_user SET email = 'robin@lino.test'")
    id = site.queue_mail("The tide is high")
    with site.daemon() as daemon:
        daemon.wait_for("send_mail() failed")
        daemon.wait_for(lambda: any("send_mail() failed" in run.output for run in site.ended()))
    assert site.sql("SELECT sent FROM notify_message WHERE id = ?", id)[0]["sent"]
