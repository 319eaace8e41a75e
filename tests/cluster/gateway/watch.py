"""Keep a copy of the objects that the gateway reads, and write the little status that says the gateway took them.

`controller.py` runs it.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client, config

from tests.cluster.gateway.answers import parents
from tests.cluster.gateway.resources import Json, Objects, our_ingress
from tests.cluster.progress import say

CALL_SECONDS = 30.0
# The API server ends a watch after this; a connection that died in silence is noticed a little later.
WATCH_SECONDS = 120
RETRY_SECONDS = 0.5
# Gateway API may be installed later than the gateway starts.
ABSENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object by its list's path, and the field of `Objects` it fills."""

    field: str
    path: str
    optional: bool = False


KINDS = (
    Kind("ingresses", "/apis/networking.k8s.io/v1/ingresses"),
    Kind("gateways", "/apis/gateway.networking.k8s.io/v1/gateways", optional=True),
    Kind("routes", "/apis/gateway.networking.k8s.io/v1/httproutes", optional=True),
    Kind("services", "/api/v1/services"),
    Kind("endpoints", "/api/v1/endpoints"),
)


class Absent(Exception):
    """The API server does not know the kind."""


class Expired(Exception):
    """The watch cannot go on from where it was; list again."""


class Api:
    """The API server as a kubeconfig names it; JSON in, JSON out."""

    def __init__(self, settings: client.Configuration) -> None:
        """Open the session; call inside the event loop."""
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        if not settings.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        token = settings.api_key.get("BearerToken") or settings.api_key.get("authorization")
        headers = {"Authorization": token if token.startswith("Bearer ") else f"Bearer {token}"} if token else {}
        self._server = settings.host.rstrip("/")
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers, read_bufsize=2**22)

    @classmethod
    async def from_kubeconfig(cls, path: str) -> "Api":
        """The current context of this file."""
        settings = client.Configuration()
        await config.load_kube_config(config_file=path, client_configuration=settings)
        return cls(settings)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def list(self, path: str) -> Json:
        """A list object. Raises Absent for an unknown kind."""
        async with self._session.get(self._server + path, timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)) as answer:
            if answer.status == 404:
                raise Absent(path)
            answer.raise_for_status()
            found: Json = await answer.json()
            return found

    async def watch(self, path: str, version: str, on_event: Callable[[str, Json], None]) -> None:
        """Call `on_event(type, object)` until the server ends the watch. Raises Expired when the version is too old."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + CALL_SECONDS)
        async with self._session.get(self._server + path, params=query, timeout=timeout) as answer:
            if answer.status == 410:
                raise Expired
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Expired
                on_event(event["type"], event["object"])

    async def patch_status(self, path: str, status: Json) -> None:
        """Merge into an object's status; an object that is gone meanwhile is nothing to report."""
        url = f"{self._server}{path}/status"
        headers = {"Content-Type": "application/merge-patch+json"}
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        async with self._session.patch(url, data=json.dumps({"status": status}), headers=headers, timeout=timeout) as answer:
            if answer.status != 404:
                answer.raise_for_status()


class Mirror:
    """A copy of all objects, kept by one task per kind; `changed` is set after every change."""

    def __init__(self, api: Api) -> None:
        """Empty until `run`."""
        self._api = api
        self._store: dict[str, dict[str, Json]] = {kind.field: {} for kind in KINDS}
        self._listed = {kind.field: asyncio.Event() for kind in KINDS}
        self.changed = asyncio.Event()

    def objects(self) -> Objects:
        """What is known now."""
        return Objects(**{name: tuple(items.values()) for name, items in self._store.items()})

    async def wait_listed(self) -> None:
        """Until every kind was listed once."""
        for event in self._listed.values():
            await event.wait()

    async def run(self) -> None:
        """Follow all kinds until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._follow(kind))

    async def _follow(self, kind: Kind) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list(kind)
                version = await self._watch(kind, version)
            except Expired:
                version = ""
            except Absent:
                if not kind.optional:
                    say(f"gateway: the API server does not know {kind.path}; trying again")
                self._replace(kind, {})
                version = ""
                await asyncio.sleep(ABSENT_SECONDS)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # The last known objects stay in force while the API server is away.
                say(f"gateway: {kind.path}: {type(error).__name__}: {error}; trying again")
                version = ""
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self, kind: Kind) -> str:
        found = await self._api.list(kind.path)
        self._replace(kind, {_key(item): item for item in found["items"]})
        return str(found["metadata"]["resourceVersion"])

    def _replace(self, kind: Kind, items: dict[str, Json]) -> None:
        self._listed[kind.field].set()
        if self._store[kind.field] != items:
            self._store[kind.field] = items
            self.changed.set()

    async def _watch(self, kind: Kind, version: str) -> str:
        last = version

        def on_event(change: str, item: Json) -> None:
            nonlocal last
            last = item["metadata"]["resourceVersion"]
            if change == "DELETED":
                self._store[kind.field].pop(_key(item), None)
            elif change in ("ADDED", "MODIFIED"):
                self._store[kind.field][_key(item)] = item
            self.changed.set()

        await self._api.watch(kind.path, version, on_event)
        return last


def _key(item: Json) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def status_patches(objects: Objects, port: int) -> list[tuple[str, Json]]:
    """(path, status) for each of our objects whose status does not say yet whether the gateway takes it."""
    patches: list[tuple[str, Json]] = []
    address: dict[str, Any] = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1", "ports": [{"port": port, "protocol": "TCP"}]}]}}
    for item in filter(our_ingress, objects.ingresses):
        if item.get("status") != address:
            patches.append((_object_path("networking.k8s.io/v1", "ingresses", item), address))
    for item in objects.routes:
        answered = parents(item, objects.gateways)
        if answered and item.get("status", {}).get("parents") != answered:
            patches.append((_object_path("gateway.networking.k8s.io/v1", "httproutes", item), {"parents": answered}))
    return patches


def _object_path(group: str, plural: str, item: Json) -> str:
    return f"/apis/{group}/namespaces/{item['metadata']['namespace']}/{plural}/{item['metadata']['name']}"
