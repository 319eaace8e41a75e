"""Asks the endpoint picker of an AliseEngine how many requests it holds because no pod is ready.

autoscaler.py calls it for AliseEngines that may have no pods. It reads the address of the picker's Service through kube.py, because the
operator needs no DNS, and opens connections to pickers and nothing else. The picker runs in a user's namespace, so its answer is bounded
as that of a pod is.
"""

import asyncio
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self

import aiohttp

from alise_contract.names import PICKER_HTTP_PORT, PICKER_SUFFIX, WAITING_PATH
from alise_operator.children.meta import Owner
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube, Resource

ASK_SECONDS: Final = 1.0
# Pickers that are asked at the same time, each with a read of the API server before it if its address is not known.
AT_ONCE: Final = 25
_MAX_BODY_BYTES: Final = 4096
# More than any picker may hold.
_MOST: Final = 1_000_000
_SERVICES: Final = Resource("v1", "services")


class HeldRequests:
    """Asks pickers. Use as an asynchronous context manager."""

    def __init__(
        self, kube: Kube, port: int = PICKER_HTTP_PORT, may_ask: Callable[[IPv4Address | IPv6Address], bool] | None = None
    ) -> None:
        """`may_ask` says which addresses of Services are asked: by default those that a Service can have."""
        self._kube = kube
        self._port = port
        self._may_ask = may_ask or of_a_service
        self._session: aiohttp.ClientSession | None = None
        # By owner, if the picker answered at it the last time. The API server is asked for the others alone.
        self.addresses: dict[Owner, str] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=ASK_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def count(self, owner: Owner) -> int | None:
        """Returns the number of held requests; None if the picker does not say it."""
        known = self.addresses.pop(owner, None)
        if known is not None and (found := await self._ask(known, owner)) is not None:
            self.addresses[owner] = known
            return found
        address = await self._address(owner)
        if address is not None and (found := await self._ask(address, owner)) is not None:
            self.addresses[owner] = address
            return found
        return None

    def forget(self, namespace: str, name: str) -> None:
        """Forgets an AliseEngine that is gone."""
        for owner in [one for one in self.addresses if (one.namespace, one.name) == (namespace, name)]:
            del self.addresses[owner]

    async def _address(self, owner: Owner) -> str | None:
        try:
            service = await self._kube.get(_SERVICES, owner.namespace, owner.name + PICKER_SUFFIX)
            address = ip_address(str((service.get("spec") or {}).get("clusterIP") or ""))
        except (ApplyError, ClusterError, ValueError):
            return None
        return str(address) if self._may_ask(address) else None

    async def _ask(self, address: str, owner: Owner) -> int | None:
        try:
            return read_count(await self._fetch(address), owner)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def _fetch(self, address: str) -> bytes:
        if self._session is None:
            raise RuntimeError("HeldRequests is used outside its context")
        host = f"[{address}]" if ":" in address else address
        async with self._session.get(f"http://{host}:{self._port}{WAITING_PATH}", allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"{WAITING_PATH} answered {response.status}")
            return await response.content.read(_MAX_BODY_BYTES)


def of_a_service(address: IPv4Address | IPv6Address) -> bool:
    """Returns whether a Service can have this address: not those of a machine itself, nor where clouds serve credentials."""
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def read_count(body: bytes, owner: Owner) -> int:
    """Returns the number for the AliseEngine in a picker's answer. Raises ValueError if there is none."""
    try:
        answer = json.loads(body)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error
    count = answer.get(f"{owner.namespace}/{owner.name}") if isinstance(answer, dict) else None
    if type(count) is not int or not 0 <= count <= _MOST:
        raise ValueError(f"the answer has no number for {owner.namespace}/{owner.name}")
    return count


async def counts(held: HeldRequests, owners: list[Owner]) -> dict[Owner, int | None]:
    """Returns the numbers of several AliseEngines; `AT_ONCE` of them are asked at the same time."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(owner: Owner) -> int | None:
        async with slots:
            return await held.count(owner)

    found = await asyncio.gather(*(one(owner) for owner in owners))
    return dict(zip(owners, found, strict=True))
