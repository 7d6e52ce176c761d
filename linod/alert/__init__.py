"""Mail for people when a site has failed, and when it is back.

systemd starts `python3 -m linod.alert failed SITE` when the unit of a site has failed for good (linod-alert@.service),
and the daemon starts `… recovered SITE` once it runs again. The mail server and the addresses are those that an
administrator has laid down, else those that the site had when it was last loaded: so it works while the site doesn't.

What the daemon needs of it is in memory.py and loads nothing more.
"""
