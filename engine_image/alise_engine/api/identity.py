"""The tenant, the class and the id of a request; pure.

A client identifies itself with an API key. Headers that name a tenant or a class count only if the resource says that a gateway sets them
(`trustHeaders`), and then only within the tenant of the key. `middleware.py` asks who a caller is, and `keys.py` reads the keys.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from alise_contract.names import (
    MAX_REQUEST_ID_CHARS,
    OBJECTIVE_HEADERS,
    PART_SEPARATOR,
    REQUEST_ID_HEADER,
    SLO_TTFT_HEADERS,
    TENANT_HEADERS,
)

MAX_LABEL_CHARS: Final = 128
_UINT32_MAX: Final = (1 << 32) - 1

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request."""

    # Empty: anonymous. All anonymous requests share one tenant's share.
    tenant: str = ""
    # Empty: the default class.
    klass: str = ""


@dataclass(frozen=True, slots=True)
class Keyring:
    """API keys by their SHA-256, and the tenant of each."""

    tenants: Mapping[bytes, str] = field(default_factory=dict)

    def tenant(self, key: str) -> str | None:
        """Returns the tenant that the key belongs to; None for an unknown key."""
        return self.tenants.get(digest(key))


@dataclass(frozen=True, slots=True)
class Rules:
    """The resource's settings for callers."""

    classes: frozenset[str] = frozenset()
    tenant_classes: Mapping[str, str] = field(default_factory=dict)
    trust_headers: bool = False


def digest(key: str) -> bytes:
    """Returns the hash under which a keyring stores a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def caller(headers: Headers, keyring: Keyring | None, rules: Rules) -> Caller | None:
    """Returns the caller; None if there is a keyring and the request has no valid key. Without a keyring every request is accepted."""
    key = _key(headers)
    tenant = ""
    if keyring is not None:
        known = keyring.tenant(key) if key else None
        if known is None:
            return None
        tenant = known
    klass = rules.tenant_classes.get(tenant, "") if tenant else ""
    # Its parts have room after it, so that they stay recognisable as its own (`owner_of`).
    tenant = _label(tenant, MAX_LABEL_CHARS // 2)
    if rules.trust_headers:
        part = _first(headers, TENANT_HEADERS)
        # With a key, the header names a part of the key's tenant; it can never name another tenant.
        tenant = PART_SEPARATOR.join(filter(None, (tenant, part))) or (f"key-{digest(key).hex()[:16]}" if key else "")
        named = _first(headers, OBJECTIVE_HEADERS)
        klass = named if named in rules.classes else klass
    return Caller(_label(tenant, MAX_LABEL_CHARS), klass if klass in rules.classes else "")


def _label(tenant: str, most: int) -> str:
    """Returns a name of at most `most` characters. A longer one ends in its hash: cut, two tenants could become one."""
    return tenant if len(tenant) <= most else f"{tenant[: most - 33]}-{digest(tenant).hex()[:32]}"


def slo_ttft_ms(headers: Headers) -> int:
    """Returns the time to first token that the client asks for, milliseconds; 0 when it asks for none that can be read."""
    value = _first(headers, SLO_TTFT_HEADERS)
    return min(int(value), _UINT32_MAX) if value.isascii() and value.isdigit() and len(value) <= 10 else 0


def request_id(headers: Headers) -> str:
    """The id that the client gave its request; empty if it gave none, or one with spaces, control characters or too many characters."""
    value = headers.get(REQUEST_ID_HEADER, "").strip()
    return value if len(value) <= MAX_REQUEST_ID_CHARS and value.isascii() and value.isprintable() and " " not in value else ""


def _key(headers: Headers) -> str:
    """The API key: a bearer token, or the header that Anthropic's clients use."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip()


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := headers.get(name, "").strip())), "")
