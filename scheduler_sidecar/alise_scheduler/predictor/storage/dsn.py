"""Reads a database's connection string: its password for `keys.py`, and what a message may contain of it for `postgres.py`.

libpq's messages quote the password. Nothing here connects to a database.
"""

import re
from typing import Any, Final
from urllib.parse import urlsplit

_NAME: Final = re.compile(r"[A-Za-z0-9._:,/-]{1,253}")
_URL: Final = re.compile(r"postgres(?:ql)?://")


def password_of(dsn: str) -> str:
    """Returns its password; empty if there is none or the string cannot be read."""
    return str(_parsed(dsn).get("password") or "")


def where(dsn: str) -> str:
    """Returns host and database for a message, such as ` at db.example, database lengths`; empty unless they are certain.

    A password with a special character shifts what follows, so that a part of it reads as host, port or database. In a string of
    keys and values, only what stands before the password is used.
    """
    held = _parsed(dsn)
    named = held if _URL.match(dsn) else _parsed(dsn.partition("password")[0]) if held else {}
    names = [str(named.get(name) or "") for name in ("host", "dbname")]
    secret = str(held.get("password") or "")
    if not names[0] or not all(_NAME.fullmatch(name) for name in names if name):
        return ""
    if secret and any(secret in name or name in secret for name in names if name):
        return ""
    if _URL.match(dsn):
        if not secret:
            # A URL without a password may be one whose password was read as something else.
            return ""
        try:
            parts = urlsplit(dsn)
            doubtful = dsn.count("@") > 1 or bool(parts.fragment) or dsn.count(":") > 3 or (parts.hostname or "") != names[0].lower()
        except ValueError:
            return ""
        if doubtful:
            return ""
    return f" at {names[0]}" + (f", database {names[1]}" if names[1] else "")


def _parsed(dsn: str) -> dict[str, Any]:
    """Returns its parts; empty if it is malformed, because then a message may contain nothing of it."""
    try:
        from psycopg.conninfo import conninfo_to_dict

        return dict(conninfo_to_dict(dsn))
    except Exception:
        # psycopg's errors, and whatever an odd string does to it: their text may quote the password.
        return {}
