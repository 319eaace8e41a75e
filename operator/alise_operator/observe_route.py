"""Fetches what decides whether the route of an AliseEngine works: the route, its Gateway or Ingress class, and other routes with its hosts.

It reads the cluster through kube.py and writes nothing. reconcile.py calls it before it builds the children; route_ready.py judges the
result.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, assert_never

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import Owner
from alise_operator.cluster import Cluster
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.hosts import Address, Claim, by_address, claims, taken_by
from alise_operator.kube import Kube, Resource
from alise_operator.observe import SECRETS
from alise_operator.route_ready import NOT_ASKED, Lookup, Way
from alise_operator.spec import Spec

GATEWAYS: Final = Resource("gateway.networking.k8s.io/v1", "gateways")
GATEWAY_CLASSES: Final = Resource("gateway.networking.k8s.io/v1", "gatewayclasses")
INGRESS_CLASSES: Final = Resource("networking.k8s.io/v1", "ingressclasses")
NAMESPACES: Final = Resource("v1", "namespaces")
# All routes of the cluster are listed once for all AliseEngines that are reconciled within this time. At rest, classes and Gateways, too.
CLAIMS_SECONDS: Final = 5.0
# Nothing reports that a Secret is gone, and each AliseEngine has its own.
SECRET_SECONDS: Final = 60.0
MAX_LOOKUPS: Final = 5_000
_LISTING_SHARE: Final = 20.0
# Bounds the list, so that one namespace cannot make it endless. Beyond these numbers, hosts in use are not found.
MAX_ROUTES: Final = 5_000
MAX_CLAIMS: Final = 20_000


class RouteObserver:
    """Asks the API server about routes, and remembers for a few seconds which hosts are claimed."""

    def __init__(self, kube: Kube, *, namespace: str = "", monotonic: Callable[[], float] = time.monotonic) -> None:
        """`namespace` is the only one that the operator may read; empty for all namespaces."""
        self._kube = kube
        self._namespace = namespace
        self._monotonic = monotonic
        self._listing = asyncio.Lock()
        # By kind: until when the list is recent enough, and the claims by address, the oldest first.
        self._claims: dict[str, tuple[float, dict[Address, list[Claim]]]] = {}
        # Until when they are recent enough, and what was found.
        self._lookups: dict[tuple[str, str, str], tuple[float, Lookup]] = {}
        self._names: tuple[float, tuple[str, ...] | None] = (float("-inf"), None)

    async def look(self, spec: Spec, owner: Owner, cluster: Cluster, known: Way | None = None) -> Way:
        """Reads everything, or only what may have changed since `known`: its route is as it was, and what AliseEngines share is read
        every few seconds for all of them. Raises ClusterError."""
        match spec.route.type:
            case "Ingress":
                return await self._ingress(spec, owner, known)
            case "HTTPRoute" if cluster.http_route:
                return await self._http_route(spec, owner, known)
            case "HTTPRoute":
                return Way(older=(await self._get(OWNED_KINDS["Ingress"][0], owner.namespace, owner.name)).found)
            case "None":
                return Way()
            case other:
                assert_never(other)

    async def has_secret(self, namespace: str, name: str) -> bool:
        """Returns whether the Secret exists, or may not be read, as of the last minute. Raises ClusterError."""
        return not (await self._shared(SECRETS, namespace, name, SECRET_SECONDS)).is_missing

    async def _ingress(self, spec: Spec, owner: Owner, known: Way | None) -> Way:
        get = self._get if known is None else self._shared
        route = known.route if known is not None else (await self._get(OWNED_KINDS["Ingress"][0], owner.namespace, owner.name)).found
        # The API server writes the default class into an Ingress that names none.
        given = (route or {}).get("spec", {}).get("ingressClassName") or spec.route.class_name
        found = await get(INGRESS_CLASSES, "", given) if given else NOT_ASKED
        names = None if given and not found.is_missing else await self._class_names(recent=known is not None)
        return Way(route=route, rival=await self._rival("Ingress", route, owner), ingress_class=found, ingress_classes=names)

    async def _http_route(self, spec: Spec, owner: Owner, known: Way | None) -> Way:
        parent, get = spec.route.parent_ref, self._get if known is None else self._shared
        route = known.route if known is not None else (await self._get(OWNED_KINDS["HTTPRoute"][0], owner.namespace, owner.name)).found
        if parent is None:
            return Way(route=route)
        gateway = await get(GATEWAYS, parent.namespace or owner.namespace, parent.name)
        of_class, labels = NOT_ASKED, None
        if gateway.found is not None:
            of_class = await get(GATEWAY_CLASSES, "", gateway.found.get("spec", {}).get("gatewayClassName", ""))
            namespace = (await get(NAMESPACES, "", owner.namespace)).found
            labels = namespace["metadata"].get("labels") or {} if namespace is not None else None
        rival = await self._rival("HTTPRoute", route, owner)
        return Way(route=route, rival=rival, gateway=gateway, gateway_class=of_class, namespace_labels=labels)

    async def _shared(self, resource: Resource, namespace: str, name: str, seconds: float = CLAIMS_SECONDS) -> Lookup:
        """As `_get`, or what it returned in the last seconds for any AliseEngine."""
        now, place = self._monotonic(), (resource.plural, namespace, name)
        until, found = self._lookups.get(place, (float("-inf"), NOT_ASKED))
        if now >= until:
            found = await self._get(resource, namespace, name)
            if resource == SECRETS and found.found is not None:
                # That it exists is all that counts; a private key is not kept.
                found = Lookup({}, known=True)
            if len(self._lookups) >= MAX_LOOKUPS:
                self._lookups = {one: kept for one, kept in self._lookups.items() if kept[0] > now}
            self._lookups[place] = (now + seconds, found)
        return found

    async def _get(self, resource: Resource, namespace: str, name: str) -> Lookup:
        try:
            return Lookup(await self._kube.get(resource, namespace, name), known=True)
        except Gone:
            return Lookup(known=True)
        except ApplyError:
            # The operator may not read it.
            return Lookup()

    async def _class_names(self, *, recent: bool) -> tuple[str, ...] | None:
        """Returns the names of all Ingress classes; if `recent` is enough, those of the last seconds."""
        until, names = self._names
        if recent and self._monotonic() < until:
            return names
        try:
            names = tuple(sorted(one["metadata"]["name"] for one in await self._kube.list(INGRESS_CLASSES, "", slim=True)))
        except ApplyError:
            names = None
        self._names = (self._monotonic() + CLAIMS_SECONDS, names)
        return names

    async def _rival(self, kind: str, route: dict[str, object] | None, owner: Owner) -> Claim | None:
        if route is None:
            return None
        return taken_by(claims(kind, route), await self._all_claims(kind))

    async def _all_claims(self, kind: str) -> dict[Address, list[Claim]]:
        async with self._listing:
            until, found = self._claims.get(kind, (float("-inf"), {}))
            began = self._monotonic()
            if began < until:
                return found
            try:
                found = by_address(await self._list_claims(kind))
            except (ApplyError, ClusterError):
                # Not allowed, or the server failed: the previous list is better than no reconcile.
                pass
            now = self._monotonic()
            # A long list is fetched less often, so that it takes a small share of the operator's time.
            self._claims[kind] = (now + max(CLAIMS_SECONDS, _LISTING_SHARE * (now - began)), found)
            return found

    async def _list_claims(self, kind: str) -> list[Claim]:
        found: list[Claim] = []
        looked_at = 0
        async for page in self._kube.pages(OWNED_KINDS[kind][0], self._namespace):
            found += [claim for item in page for claim in claims(kind, item)]
            looked_at += len(page)
            if looked_at >= MAX_ROUTES or len(found) >= MAX_CLAIMS:
                break
        return found
