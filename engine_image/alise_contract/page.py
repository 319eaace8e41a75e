"""What the operator's page and `kubectl alise ui`, which opens it, agree on: which hosts it is asked by, its headers, and its places.

A place is a part of the page that the operator leaves to the plugin. The plugin fills it with what the person's own rights let it read.
"""

import re
from collections.abc import Mapping
from typing import Final

# On the loopback of the operator's pod.
PORT: Final = 9502
# Of an engine's page: its requests by rank, and the account of the one that is asked for.
REQUESTS_PLACE: Final = "alise:requests"
ACCOUNT_PLACE: Final = "alise:account"
# The parameter of an engine's page that names a request.
REQUEST_PARAMETER: Final = "request"
NAMESPACE: Final = re.compile(r"[a-z0-9][-a-z0-9]{0,62}")
ENGINE_PATH: Final = re.compile(rf"/engines/({NAMESPACE.pattern})/([a-z0-9][-.a-z0-9]{{0,252}})")
# No script, no style of an element, nothing of another host, no frame around it.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOCAL: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def is_local(host: str) -> bool:
    """Returns whether a Host header names this machine. Another name that leads here is a website's, which wants to read the page."""
    return _LOCAL.fullmatch(host) is not None


def filled(page: str, place: str, html: str) -> str:
    """Returns the page with this HTML in the place, which stands between two comments; unchanged if it does not have the place.

    No other text of the page can look like them, because `<` is escaped there.
    """
    before, begins, rest = page.partition(f"<!--{place}-->")
    _, ends, after = rest.partition(f"<!--/{place}-->")
    return before + html + after if begins and ends else page
