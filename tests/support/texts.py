"""Texts and values that are hard to swallow, for all targets."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ODD = (
    *("", " ", "\n", "\t", "\0", "\x1b[2J", "\x07", "\x7f", "\x85", "\x9b31m", "\u202e", "\u2028", "\u200b", "\ufeff"),
    *(
        "é",
        "中",
        "e\u0301",
        "😀",
        "\udcff",
        "\ud800",
        "%s",
        "%(here)s",
        "%",
        "{}",
        "'",
        '"',
        "\\",
        "`id`",
        "$(id)",
        "~",
    ),
    *("-", "--help", "..", "/", "a/b", ".", "None", "nan", "1e400", "²", "9" * 400, "x" * 5000),
)
texts = st.sampled_from(ODD) | st.text(max_size=20) | st.lists(st.sampled_from(ODD), max_size=4).map("".join)
encodable = texts.map(lambda text: text.encode(errors="replace").decode())
numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**62, 2**63, 2**64, 253402300800, 253402300800 * 10**6, 10**400]),
)
# What JSON can hold, as Python reads it.
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | numbers | encodable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(encodable, inner, max_size=3),
    max_leaves=5,
)


def changed(draw: st.DrawFn, value: Any, new: st.SearchStrategy[Any] = values) -> Any:
    """A plain value with another one somewhere in it, or without something, or with something more."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(new)
    copy: Any = value.copy()
    key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    match draw(st.integers(0, 7)):
        case 0:
            del copy[key]
        case 1 if isinstance(value, dict):
            copy[draw(encodable)] = draw(new)
        case _:
            copy[key] = changed(draw, value[key], new)
    return copy


@st.composite
def changed_values(draw: st.DrawFn, originals: st.SearchStrategy[Any]) -> Any:
    """Plain values that are as they should be, but for a place or two."""
    value = draw(originals)
    for _ in range(draw(st.integers(1, 2))):
        value = changed(draw, value)
    return value


@st.composite
def changed_bytes(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that are as they should be, but for some that are others, missing or too many."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        data[start:end] = draw(st.binary(max_size=6))
    return bytes(data)
