"""Decides which Ingress or HTTPRoute gets a host that several of them claim: the oldest one, as in ingress controllers.

Pure: observe_route.py passes the routes of the cluster, and the rival becomes the reason HostTaken in route_ready.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alise_contract.names import ENGINE_LABEL, KIND
from alise_operator.children.annotations import CLASS_ANNOTATION
from alise_operator.children.meta import MANAGED_BY, MANAGER, Manifest
from alise_operator.children.route import API_PATH

# Kind, entry and host.
Address = tuple[str, str, str]


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A host that an Ingress or HTTPRoute claims for the path of the API. Ordered by age, then by name."""

    created: str
    namespace: str
    name: str
    kind: str
    host: str
    # Where requests arrive: the Ingress class, or the Gateway as namespace/name. The same host at another entry is another address.
    entry: str
    # The AliseEngine that the object belongs to; empty if it belongs to none.
    engine: str = ""

    @property
    def address(self) -> Address:
        return self.kind, self.entry, self.host

    def __str__(self) -> str:
        whose = f" of {KIND} {self.namespace}/{self.engine}" if self.engine else ""
        return f"{self.kind} {self.namespace}/{self.name}{whose}"


def claims(kind: str, item: Manifest) -> Iterator[Claim]:
    """Yields the hosts that an Ingress or HTTPRoute claims for the path of the API. Longer and shorter paths do not conflict with it."""
    meta = item["metadata"]
    labels = meta.get("labels") or {}
    engine = labels.get(ENGINE_LABEL, "") if labels.get(MANAGED_BY) == MANAGER else ""
    found = _of_ingress(item) if kind == "Ingress" else _of_http_route(item)
    for entry, host in dict.fromkeys(found):
        yield Claim(meta.get("creationTimestamp") or "", meta["namespace"], meta["name"], kind, host, entry, engine)


def by_address(found: Iterable[Claim]) -> dict[Address, list[Claim]]:
    """Returns the claims on each address, the oldest first. With it, `taken_by` takes as long for one claim as for a thousand."""
    addresses: dict[Address, list[Claim]] = {}
    for claim in sorted(found):
        addresses.setdefault(claim.address, []).append(claim)
    return addresses


def taken_by(own: Iterable[Claim], found: Mapping[Address, Sequence[Claim]]) -> Claim | None:
    """Returns the oldest claim of another object on one of our hosts; None if our claims are the oldest."""
    return min(filter(None, (_older(claim, found.get(claim.address, ())) for claim in own)), default=None)


def _older(claim: Claim, found: Sequence[Claim]) -> Claim | None:
    for other in found:
        if other >= claim:
            break
        if (other.namespace, other.name) != (claim.namespace, claim.name):
            return other
    return None


def _of_ingress(item: Manifest) -> Iterator[tuple[str, str]]:
    spec = item.get("spec") or {}
    entry = spec.get("ingressClassName") or (item["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION) or ""
    for rule in spec.get("rules") or ():
        paths = (rule.get("http") or {}).get("paths") or ()
        if any(path.get("pathType") != "Exact" and _is_api(path.get("path")) for path in paths):
            yield entry, rule.get("host") or "*"


def _of_http_route(item: Manifest) -> Iterator[tuple[str, str]]:
    spec, home = item.get("spec") or {}, item["metadata"]["namespace"]
    if not any(_matches_api(match) for rule in spec.get("rules") or () for match in rule.get("matches") or ()):
        return
    for parent in spec.get("parentRefs") or ():
        entry = f"{parent.get('namespace') or home}/{parent.get('name')}"
        if parent.get("kind", "Gateway") == "Gateway" and not _is_refused(item, entry):
            for host in spec.get("hostnames") or ("*",):
                yield entry, host


def _matches_api(match: Manifest) -> bool:
    """Returns whether the match takes all requests for the path. A match on headers or a method is more specific and does not conflict."""
    path = match.get("path") or {}
    return set(match) == {"path"} and path.get("type", "PathPrefix") == "PathPrefix" and _is_api(path.get("value"))


def _is_api(path: str | None) -> bool:
    return (path or "/").rstrip("/") == API_PATH


def _is_refused(route: Manifest, entry: str) -> bool:
    """Returns whether the Gateway refuses the route, which then has no host there."""
    home = route["metadata"]["namespace"]
    accepted = [
        condition.get("status")
        for parent in (route.get("status") or {}).get("parents") or ()
        if f"{(parent.get('parentRef') or {}).get('namespace') or home}/{(parent.get('parentRef') or {}).get('name')}" == entry
        for condition in parent.get("conditions") or ()
        if condition.get("type") == "Accepted"
    ]
    return "False" in accepted and "True" not in accepted
