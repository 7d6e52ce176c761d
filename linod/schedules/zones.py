"""The clock on a wall: when does it show a local time, where summer time skips some and repeats others?"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from ..errors import DeclarationError
from ..instants import MICROSECOND


def first_instant(local: datetime, zone: tzinfo) -> datetime:
    """The first instant (UTC) at which the clock shows the naive time `local` or a later one.

    This one rule covers both changes: a skipped time comes at the end of the gap, a repeated one in its first pass.
    """
    earlier = _local_offset(local, zone, fold=0)
    later = _local_offset(local, zone, fold=1)
    instant = (local - earlier).replace(tzinfo=UTC)
    if later <= earlier:
        return instant
    return offset_change((local - later).replace(tzinfo=UTC), instant, zone)


def latest_shown(instant: datetime, zone: tzinfo) -> datetime:
    """The latest naive local time that the clock has shown up to `instant`.

    In the second pass of a repeated hour that is the end of the first pass, so that `first_instant(local)` is not
    later than `instant` exactly when `local` is not later than this.
    """
    local = instant.astimezone(zone)
    if not local.fold:
        return local.replace(tzinfo=None)
    first_pass = local.replace(fold=0).astimezone(UTC)
    change = offset_change(first_pass, instant, zone)
    return (change - MICROSECOND).astimezone(zone).replace(tzinfo=None)


def offset_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The first instant in (before, after] with another offset from UTC than `before`; one change lies between."""
    old = utc_offset(before, zone)
    # zoneinfo knows the moments of change but doesn't tell them.
    steps = bisect_left(
        range((after - before) // MICROSECOND),
        True,
        key=lambda step: utc_offset(before + step * MICROSECOND, zone) != old,
    )
    return before + steps * MICROSECOND


def utc_offset(moment: datetime, zone: tzinfo) -> timedelta:
    """What the clock is ahead of UTC at an instant."""
    return _known(moment.astimezone(zone).utcoffset())


def _local_offset(local: datetime, zone: tzinfo, fold: int) -> timedelta:
    return _known(local.replace(tzinfo=zone, fold=fold).utcoffset())


def _known(offset: timedelta | None) -> timedelta:
    assert offset is not None  # only a naive datetime has none
    return offset


@cache
def zone_named(name: str) -> ZoneInfo:
    """The zone of that name. Raises DeclarationError with the names that look like it."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError, TypeError):  # OSError: "Europe" is a directory
        raise DeclarationError(f"There is no time zone {name!r}.", _zone_hint(name)) from None


def zone_name(zone: object) -> str | None:
    """The name of a zone given as a name or as a tzinfo of zoneinfo, pytz or datetime; None for None.

    Raises DeclarationError if there is no such zone.
    """
    if zone is None:
        return None
    name = "UTC" if zone is UTC else getattr(zone, "key", None) or getattr(zone, "zone", None) or zone
    if not isinstance(name, str):
        raise DeclarationError(f"{zone!r} is not the name of a time zone.", 'Write one, as in tz="Europe/Brussels".')
    zone_named(name)
    return name


def _zone_hint(name: object) -> str:
    # Only needed for a mistake, and the daemon is to stay small.
    from difflib import get_close_matches

    names = available_timezones()
    if not names:
        return "This host has no time zones at all: install the package tzdata."
    known = {zone.rpartition("/")[2].lower(): zone for zone in sorted(names)} | {zone.lower(): zone for zone in names}
    close = [known[match] for match in get_close_matches(str(name).lower(), known, n=3)]
    if close:
        return f"Did you mean {' or '.join(dict.fromkeys(close))}?"
    return 'Write a name of the IANA database, as in tz="Europe/Brussels".'
