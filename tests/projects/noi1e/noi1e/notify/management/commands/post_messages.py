"""Write messages to users, as the application would; for demonstrations and tests."""

from itertools import cycle, islice

from django.core.management.base import BaseCommand, CommandError

from noi1e.notify.models import Message
from noi1e.users.models import User


class Command(BaseCommand):
    help = "Write COUNT messages, one after the other to each user of a mail mode."

    def add_arguments(self, parser):
        parser.add_argument("count", type=int)
        parser.add_argument("--mode", choices=User.MailMode.values, default=User.MailMode.OFTEN)

    def handle(self, *, count, mode, **options):
        users = User.objects.filter(mail_mode=mode).exclude(email="").order_by("pk")
        if not users:
            raise CommandError(f"No user wants mails '{mode}'. Run `manage.py demo` first.")
        Message.objects.bulk_create(
            Message(user=user, subject=f"News {number}", body=f"This is message {number}.")
            for number, user in enumerate(islice(cycle(users), count), 1)
        )
        self.stdout.write(f"{count} messages are waiting.")
