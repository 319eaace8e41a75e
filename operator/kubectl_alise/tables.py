"""Tables and durations as kubectl prints them, and texts that any terminal can show; pure.

`cli.py`, `status_text.py` and `requests_text.py` call it, and `__main__.py` for its errors.
"""

from collections.abc import Sequence
from datetime import datetime


def printable(text: str) -> str:
    """The text with a space for each control character but line ends. A pod may answer anything, and a terminal obeys some of them."""
    return text if text.isprintable() else "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with columns of equal width, three spaces apart. An empty cell is a dash."""
    cells = [tuple(headings), *(tuple(cell or "-" for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return [(indent + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in cells]


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, in the two largest units that matter: 42s, 12m, 3h20m, 5d. Empty if it is not known."""
    if since is None:
        return ""
    seconds = max(0, int((now - since).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 120:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60}m" if hours < 24 else f"{days}d{hours % 24}h" if days < 7 else f"{days}d"
