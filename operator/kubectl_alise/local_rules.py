"""Who may read the page on this machine: a browser that was given the key of this start, by a name of this machine; pure.

The page shows what the person's rights let it read, and any user of the machine can connect to its loopback. So the address that is printed
has a key, which the first answer turns into a cookie. `ui.py` asks it about each request.
"""

import hmac
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from alise_contract import page

KEY_PARAMETER: Final = "key"


@dataclass(frozen=True, slots=True)
class Refused:
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """To the same page without the key, with the cookie."""

    location: str
    cookie: str


@dataclass(frozen=True, slots=True)
class Admitted:
    # With its query.
    path: str


def admission(target: str, host: str, cookies: str, key: str, port: int) -> Refused | Redirect | Admitted:
    """What becomes of a GET: `target` is its path with the query, `host` and `cookies` are its headers, `key` that of this start."""
    if not page.is_local(host):
        return Refused(421, "Open the page as http://127.0.0.1 or localhost.")
    if not target.startswith("/") or target.startswith("//") or not target.isascii():
        return Refused(404, "There is no such page.")
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(query).get(KEY_PARAMETER)
    if given is not None and _same(given, key):
        rest = urlencode([(name, value) for name, value in query if name != KEY_PARAMETER])
        return Redirect(f"{parts.path}?{rest}" if rest else parts.path, f"{_cookie(port)}={key}; Path=/; HttpOnly; SameSite=Strict")
    if not _same(_value(cookies, _cookie(port)), key):
        return Refused(403, "Open the address that `kubectl alise ui` printed: it has the key.")
    return Admitted(target)


def _cookie(port: int) -> str:
    # Cookies of one host are shared by its ports.
    return f"alise_ui_{port}"


def _value(cookies: str, name: str) -> str:
    # By hand, because http.cookies gives up at the first odd cookie, and other servers of the machine set cookies here, too.
    pairs = (one.strip().partition("=") for one in cookies.split(";"))
    return next((value for key, _, value in pairs if key == name), "")


def _same(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), key.encode())
