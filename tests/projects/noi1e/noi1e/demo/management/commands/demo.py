"""Fill an empty database with demo data."""

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from noi1e.demo.data import fill
from noi1e.demo.repository import create_repository
from noi1e.users.models import User


class Command(BaseCommand):
    help = "Fill an empty database with demo data, the same each time."

    def add_arguments(self, parser):
        parser.add_argument(
            "--now",
            type=lambda text: timezone.make_aware(parse_datetime(text)),
            default=timezone.now(),
            help="The local time from which the data counts back, for example 2026-11-24T12:00",
        )

    def handle(self, *, now, **options):
        users = User.objects.count()
        if users:
            self.stdout.write(f"This database has {users} users already. Nothing was changed.")
            return
        create_repository(settings.VAR_DIR / "repos" / "noi1e.git")
        with transaction.atomic():
            fill(now)
        self.stdout.write("Demo data was written.")
