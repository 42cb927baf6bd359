"""What upstreams send, made safe for the wire and the ledger. Both raise for anything else."""

from __future__ import annotations

from typing import Any

MAX_COUNT = 2**31 - 1


def text_of(value: Any) -> str:
    """A text that UTF-8 can hold; none is empty. Raises ``TypeError``."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    # JSON can escape half a character, which UTF-8 cannot hold.
    return value if value.isascii() else value.encode(errors="replace").decode()


def count_of(value: Any) -> int:
    """A number that the wire and the ledger can hold; none is 0. Raises ``ValueError``."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    if not 0 <= value <= MAX_COUNT:
        raise ValueError
    return int(value)
