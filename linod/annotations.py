"""What isinstance understands of an annotation, to look at values that came from elsewhere."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin


def plain_types(annotation: Any) -> tuple[type[Any], ...]:
    """JSON has no other numbers, lists and dictionaries: an int will do for a float."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    types = [get_origin(part) or part for part in parts]
    return (*types, int) if float in types else tuple(types)


def item_types(annotation: Any) -> tuple[type[Any], ...]:
    """Of what is in a list; nothing for anything else."""
    return tuple(get_origin(part) or part for part in get_args(annotation)) if get_origin(annotation) is list else ()
