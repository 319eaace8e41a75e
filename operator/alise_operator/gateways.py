"""Reads what a Gateway and its class allow: namespaces, hosts, kinds of routes and timeouts.

Pure, and it knows the Gateway API's objects alone: route_ready.py asks it about the objects that observe_route.py has fetched.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from alise_operator.children.meta import Manifest
from alise_operator.children.route import TIMEOUTS, TIMEOUTS_REFUSED_BY

# Feature names of the Gateway API for each field of `timeouts`.
_TIMEOUT_FEATURES: Final = {"request": "HTTPRouteRequestTimeout", "backendRequest": "HTTPRouteBackendTimeout"}
# The Gateway's reason for a route that has a field which its class does not implement.
UNSUPPORTED: Final = "UnsupportedValue"
# Listeners with these protocols take other kinds of routes.
_OTHER_PROTOCOLS: Final = ("TCP", "TLS", "UDP")


def listeners(gateway: Manifest, section_name: str | None) -> list[Manifest]:
    """Returns the listeners that a route attaches to."""
    return [one for one in gateway.get("spec", {}).get("listeners") or () if section_name in (None, one.get("name"))]


def allows_namespace(
    gateway: Manifest, section_name: str | None, *, home: str, namespace: str, labels: Mapping[str, str] | None
) -> bool | None:
    """Returns whether a listener allows routes of `namespace`; None if this is unknown, so that the Gateway's controller decides.

    `home` is the Gateway's namespace; `labels` are those of `namespace`, None if they could not be read.
    """
    answers = [_allows(one, home, namespace, labels) for one in listeners(gateway, section_name)]
    if not answers or True in answers:
        return True if answers else None
    return None if None in answers else False


def _allows(listener: Manifest, home: str, namespace: str, labels: Mapping[str, str] | None) -> bool | None:
    namespaces = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    match namespaces.get("from", "Same"):
        case "All":
            return True
        case "Same":
            return home == namespace
        case "Selector":
            return None if labels is None else selects(namespaces.get("selector") or {}, labels)
    return None


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector matches the labels."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False


def describe_allowed(gateway: Manifest, section_name: str | None) -> str:
    """Returns which namespaces each listener allows, for a message."""
    texts = []
    for one in listeners(gateway, section_name):
        namespaces = (one.get("allowedRoutes") or {}).get("namespaces") or {}
        allowed = namespaces.get("from", "Same")
        if allowed == "Selector":
            allowed += f" {_describe_selector(namespaces.get('selector') or {})}"
        texts.append(f"listener {one.get('name')}: from {allowed}")
    return ", ".join(texts)


def _describe_selector(selector: Mapping[str, Any]) -> str:
    labels = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    rules = [
        " ".join([str(one.get("key")), str(one.get("operator")), *(["/".join(one["values"])] if one.get("values") else [])])
        for one in selector.get("matchExpressions") or ()
    ]
    return ", ".join([*labels, *rules]) or "of any labels"


def describe_hosts(gateway: Manifest, section_name: str | None) -> str:
    """Returns which hosts the listeners admit, for a message."""
    hosts = (one.get("hostname") for one in listeners(gateway, section_name))
    return ", ".join(dict.fromkeys(f'"{host}"' if host else "any host" for host in hosts))


def ask_to_allow_kind(gateway: Manifest, section_name: str | None) -> str:
    """Returns which listeners take no HTTPRoute, and what the Gateway's owner must change, for a message."""
    by_kind, by_protocol = [], []
    for one in listeners(gateway, section_name):
        kinds = [str(kind.get("kind")) for kind in (one.get("allowedRoutes") or {}).get("kinds") or ()]
        if kinds and "HTTPRoute" not in kinds:
            by_kind.append(f"listener {one.get('name')} allows only {' and '.join(kinds)}")
        elif not kinds and one.get("protocol") in _OTHER_PROTOCOLS:
            by_protocol.append(f"listener {one.get('name')} has the protocol {one['protocol']}, which takes no HTTPRoute")
    if by_kind:
        return f"{', '.join(by_kind)}: ask the Gateway's owner to add HTTPRoute to allowedRoutes.kinds"
    if by_protocol:
        return f"{', '.join(by_protocol)}: ask the Gateway's owner to add a listener with the protocol HTTP or HTTPS"
    return "ask the Gateway's owner to change allowedRoutes of a listener"


def is_outdated(condition: Manifest, thing: Manifest) -> bool:
    """Returns whether the condition is about an older spec of the object."""
    generation = thing["metadata"].get("generation", 0)
    return bool(condition.get("observedGeneration", generation) < generation)


def supported_timeouts(gateway_class: Manifest | None) -> frozenset[str]:
    """Returns the fields of `timeouts` that the class implements; all fields if it does not list its features."""
    features = ((gateway_class or {}).get("status") or {}).get("supportedFeatures") or ()
    # A list of names before Gateway API 1.2, of objects since then.
    names = {one.get("name") if isinstance(one, dict) else one for one in features}
    return frozenset(field for field in TIMEOUTS if not names or _TIMEOUT_FEATURES[field] in names)


def has_refused_timeouts(route: Manifest | None, gateway: str) -> bool:
    """Returns whether the Gateway (namespace/name) has refused the timeouts of this HTTPRoute, now or earlier.

    An earlier refusal is recorded in an annotation of the route. Without it the next reconcile would try timeouts again, and the route
    would be accepted and refused in turn.
    """
    if route is None:
        return False
    meta = route["metadata"]
    if (meta.get("annotations") or {}).get(TIMEOUTS_REFUSED_BY) == gateway:
        return True
    if not any(rule.get("timeouts") for rule in route.get("spec", {}).get("rules") or ()):
        return False
    return any(
        condition.get("status") == "False" and condition.get("reason") == UNSUPPORTED and not is_outdated(condition, route)
        for parent in parents(route, gateway)
        for condition in parent.get("conditions") or ()
        if condition.get("type") == "Accepted"
    )


def parents(route: Manifest, gateway: str, section_name: str | None = None) -> Iterator[Manifest]:
    """Yields the entries of controllers in the status of the route for this Gateway (namespace/name)."""
    home = route["metadata"].get("namespace", "")
    for parent in (route.get("status") or {}).get("parents") or ():
        reference = parent.get("parentRef") or {}
        if f"{reference.get('namespace') or home}/{reference.get('name')}" == gateway and (
            section_name is None or reference.get("sectionName") in (None, section_name)
        ):
            yield parent
