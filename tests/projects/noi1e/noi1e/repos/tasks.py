"""The task `update_all_repos`."""

import logging

from django.conf import settings
from django.db import transaction

import linod
from linod import dd
from noi1e.repos import git
from noi1e.repos.models import Commit, Repository

logger = logging.getLogger(__name__)


@dd.schedule_often(every=3600, rerun_lost=True)
def update_all_repos():
    """Read the new commits of all repositories into the database."""
    repositories = Repository.objects.order_by("pk")
    for done, repository in enumerate(repositories, 1):
        try:
            update(repository)
        except git.UnreadableRepository as error:
            logger.warning("Repository %s can't be read: %s", repository, error)
        linod.progress(done, len(repositories), repository.name)


def update(repository):
    path = settings.VAR_DIR / repository.path
    tip = git.tip(path)
    if tip in ("", repository.tip):
        return
    read = git.log(path, tip, known=repository.tip)
    known = set(repository.commits.values_list("sha", flat=True))
    new = [commit for commit in read if commit.sha not in known]
    with transaction.atomic():
        Commit.objects.bulk_create(
            Commit(
                repository=repository,
                sha=commit.sha,
                committed=commit.committed,
                author=commit.author[:200],
                summary=commit.summary[:200],
            )
            for commit in new
        )
        Repository.objects.filter(pk=repository.pk).update(tip=tip)
    logger.info("Read %d new commits of repository %s.", len(new), repository)
