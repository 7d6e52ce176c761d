"""The demo data: a small company's worth of users, tickets and messages, with some untidiness for the checkers."""

from datetime import UTC, timedelta
from random import Random

from noi1e.notify.models import Message
from noi1e.repos.models import Repository
from noi1e.tickets.models import Comment, Ticket, WorkSession
from noi1e.users.models import User

FIRST_NAMES = [
    "Andreas",
    "Birgit",
    "Carla",
    "Dieter",
    "Eva",
    "Fritz",
    "Gerta",
    "Hans",
    "Inge",
    "Jean",
    "Kadri",
    "Luc",
    "Mari",
    "Nele",
]
LAST_NAMES = [
    "Adams",
    "Bodard",
    "Collard",
    "Dupont",
    "Emonts",
    "Faymonville",
    "Gernegross",
    "Hilgers",
    "Ivens",
    "Jonas",
]
THINGS = ["login", "search", "calendar", "report", "invoice", "menu", "upload", "translation", "printout", "backup"]
TROUBLES = ["is slow", "fails on Mondays", "shows a wrong date", "needs a help text", "looks odd on a phone"]
MODES = [User.MailMode.OFTEN] * 5 + [User.MailMode.DAILY] * 3 + [User.MailMode.SILENT] * 2
STATES = [Ticket.State.NEW, Ticket.State.WORKING, Ticket.State.DONE, Ticket.State.REFUSED]

USERS, TICKETS, COMMENTS, SESSIONS, MESSAGES = 240, 400, 900, 700, 600


def fill(now):
    """Write all demo data; nothing in it is later than `now`."""
    random = Random("noi1e")
    # In local time, counting back over a change of the clock differs between versions of Django.
    now = now.astimezone(UTC)
    users = make_users(random, now - timedelta(days=400))
    tickets = make_tickets(random, now, users)
    make_activity(random, now, users, tickets)
    make_messages(random, now, users)
    Repository.objects.create(name="noi1e", path="repos/noi1e.git")


def ago(random, now, days):
    """Return some time in the last `days` days."""
    return now - timedelta(seconds=random.randrange(days * 86400))


def make_users(random, joined):
    users = [User(username="robin", email="robin@example.com", password="!", date_joined=joined)]
    for number in range(1, USERS):
        first, last = random.choice(FIRST_NAMES), random.choice(LAST_NAMES)
        username = f"{first}.{last}{number}".lower()
        users.append(
            User(
                username=username,
                first_name=first,
                last_name=last,
                email="" if number % 60 == 0 else f"{username}@example.com",
                password="!",  # can't log in
                mail_mode=random.choice(MODES),
                date_joined=joined,
            )
        )
    User.objects.bulk_create(users)
    return list(User.objects.order_by("pk"))


def make_tickets(random, now, users):
    Ticket.objects.bulk_create(
        Ticket(
            title=f"The {random.choice(THINGS)} {random.choice(TROUBLES)}",
            state=random.choice(STATES),
            created=ago(random, now, 365),
            author=random.choice(users),
            assigned_to=random.choice(users) if random.random() < 0.9 else None,
        )
        for _ in range(TICKETS)
    )
    return list(Ticket.objects.order_by("pk"))


def make_activity(random, now, users, tickets):
    Comment.objects.bulk_create(
        Comment(
            ticket=random.choice(tickets),
            user=random.choice(users),
            created=ago(random, now, 90),
            body=f"I think the {random.choice(THINGS)} {random.choice(TROUBLES)} as well.",
        )
        for _ in range(COMMENTS)
    )
    WorkSession.objects.bulk_create(
        WorkSession(
            ticket=random.choice(tickets),
            user=random.choice(users),
            started=ago(random, now, 90),
            minutes=None if number % 100 == 0 else random.randrange(5, 240),
        )
        for number in range(SESSIONS)
    )


def make_messages(random, now, users):
    """Half of the messages are old and were mailed, many of these seen; the other half waits."""
    messages = []
    for number in range(MESSAGES):
        is_old = number % 2 == 0
        created = ago(random, now, 30) - timedelta(days=1) if is_old else ago(random, now, 1)
        messages.append(
            Message(
                user=random.choice(users),
                created=created,
                subject=f"The {random.choice(THINGS)} {random.choice(TROUBLES)}",
                body=f"Somebody commented on your ticket. This is message {number}.",
                seen=created if random.random() < 0.4 else None,
                sent=created if is_old else None,
            )
        )
    Message.objects.bulk_create(messages)
