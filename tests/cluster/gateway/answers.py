"""What a controller answers to an HTTPRoute: accepted, or why not; pure.

As the Gateway API defines it, for what a test gateway needs: hosts, listeners by name, and namespaces from All or Same. `controller.py` and
`watch.py` call it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.cluster.gateway.resources import Json, Objects, our_gateways

CONTROLLER = "alise.dev/test-gateway"


def parents(route: Json, gateways: Iterable[Json]) -> list[Json]:
    """The entries of the route's status, one per parent that is a Gateway of ours."""
    generation = route["metadata"].get("generation", 1)
    found = []
    for reference, gateway in _ours(route, gateways):
        refusal = refused(route, reference, gateway)
        answers = [("Accepted", *(("False", *refusal) if refusal else ("True", "Accepted", "routed by the test gateway")))]
        answers.append(("ResolvedRefs", "True", "ResolvedRefs", "routed by the test gateway"))
        conditions = [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": route["metadata"]["creationTimestamp"],
            }
            for kind, status, reason, message in answers
        ]
        found.append({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    return found


def accepted(objects: Objects) -> Objects:
    """The same objects without the routes that no Gateway of ours takes."""
    kept = [
        route
        for route in objects.routes
        if any(refused(route, reference, gateway) is None for reference, gateway in _ours(route, objects.gateways))
    ]
    return replace(objects, routes=kept)


def refused(route: Json, reference: Json, gateway: Json) -> tuple[str, str] | None:
    """Reason and message; None when the Gateway takes the route. One without listeners takes all."""
    every = gateway.get("spec", {}).get("listeners") or [{"allowedRoutes": {"namespaces": {"from": "All"}}}]
    listeners = [one for one in every if reference.get("sectionName") in (None, one.get("name"))]
    if not listeners:
        return "NoMatchingParent", f"the Gateway has no listener {reference['sectionName']}"
    allowing = [one for one in listeners if _allows(one, route["metadata"]["namespace"], gateway["metadata"]["namespace"])]
    if not allowing:
        return "NotAllowedByListeners", "no listener allows routes of this namespace"
    hosts = route.get("spec", {}).get("hostnames") or ["*"]
    if not any(_admits(one.get("hostname"), host) for one in allowing for host in hosts):
        return "NoMatchingListenerHostname", f"no listener admits {', '.join(hosts)}"
    return None


def _ours(route: Json, gateways: Iterable[Json]) -> Iterator[tuple[Json, Json]]:
    known = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in gateways}
    ours, home = our_gateways(known.values()), route["metadata"]["namespace"]
    for reference in route.get("spec", {}).get("parentRefs", []):
        key = (reference.get("namespace", home), reference.get("name"))
        if key in ours:
            yield reference, known[key]


def _allows(listener: Json, namespace: str, home: str) -> bool:
    allowed = listener.get("allowedRoutes", {}).get("namespaces", {}).get("from", "Same")
    return allowed == "All" or (allowed == "Same" and namespace == home)


def _admits(listener: str | None, host: str) -> bool:
    if listener in (None, "", "*") or host == "*":
        return True
    return host == listener or _under(host, listener) or _under(listener, host)


def _under(host: str, wildcard: str) -> bool:
    return wildcard.startswith("*.") and host.removeprefix("*.").endswith(wildcard[1:])
