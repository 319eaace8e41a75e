"""The condition RouteReady: whether requests from outside the cluster can reach the pods, with the message of what refuses the route.

Pure: observe_route.py fetches the objects as a `Way`, status.py asks for the condition, and reconcile.py for the limits of the Gateway
before it builds the route. An HTTPRoute carries the answer of its Gateway. An Ingress carries none, so the operator checks whether its
class exists and whether an older Ingress uses the host.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from alise_operator import gateways, reasons
from alise_operator.children.annotations import CLASS_ANNOTATION
from alise_operator.children.meta import MANAGER, Manifest, Owner
from alise_operator.children.route import API_PATH, TIMEOUTS, TIMEOUTS_REFUSED_BY, GatewayLimits, url
from alise_operator.conditions import Condition
from alise_operator.errors import InvalidSpec, OperatorError
from alise_operator.hosts import Claim
from alise_operator.sentences import clause, gist, quote
from alise_operator.spec import ParentRef, Spec

TYPE: Final = "RouteReady"
# A running controller answers within a second or two.
NO_CONTROLLER_SECONDS: Final = 30.0
# Reasons of a route that does not lead to the pods. They are also reasons of Degraded; the gravest is first.
REFUSED_REASONS: Final = tuple(one.name for one in reasons.ROUTE)


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of asking for one object: the object, or its absence, or (`known` is False) that the operator may not ask."""

    found: Manifest | None = None
    known: bool = False

    @property
    def is_missing(self) -> bool:
        return self.known and self.found is None


NOT_ASKED: Final = Lookup()


@dataclass(frozen=True, slots=True)
class Way:
    """What the cluster says about access from outside."""

    # The resource's Ingress or HTTPRoute.
    route: Manifest | None = None
    # An older route that uses one of the hosts.
    rival: Claim | None = None
    gateway: Lookup = NOT_ASKED
    gateway_class: Lookup = NOT_ASKED
    # Labels of the namespace of the AliseEngine; None if unknown.
    namespace_labels: Mapping[str, str] | None = None
    ingress_class: Lookup = NOT_ASKED
    # Names of all Ingress classes; None if unknown.
    ingress_classes: tuple[str, ...] | None = None
    # The Ingress of an earlier spec, where the cluster does not serve what the present one needs.
    older: Manifest | None = None


def gateway_name(parent: ParentRef, owner: Owner) -> str:
    return f"{parent.namespace or owner.namespace}/{parent.name}"


def gateway_limits(spec: Spec, owner: Owner, way: Way) -> GatewayLimits:
    """Returns what the Gateway allows. What is unknown counts as allowed, and the controller of the Gateway decides."""
    parent = spec.route.parent_ref
    if parent is None:
        return GatewayLimits()
    name = gateway_name(parent, owner)
    return GatewayLimits(
        allows_namespace=_allows_namespace(parent, owner, way) is not False,
        timeouts=gateways.supported_timeouts(way.gateway_class.found),
        timeouts_refused_by=name if gateways.has_refused_timeouts(way.route, name) else "",
    )


def _allows_namespace(parent: ParentRef, owner: Owner, way: Way) -> bool | None:
    if way.gateway.found is None:
        return None
    home = parent.namespace or owner.namespace
    return gateways.allows_namespace(
        way.gateway.found, parent.section_name, home=home, namespace=owner.namespace, labels=way.namespace_labels
    )


def route_ready(
    spec: Spec | None,
    owner: Owner,
    way: Way | None,
    error: OperatorError | None,
    previous: Mapping[str, Any] | None,
    now: datetime,
    *,
    serves: bool = True,
) -> Condition:
    """Returns the condition.

    `way` is None if the spec cannot be read: then the route and the condition stay as they were. `serves` says whether a pod is ready, so
    that clients inside the cluster can send requests.
    """
    if spec is None or way is None:
        return _as_before(previous, error)
    match spec.route.type:
        case "None":
            verdict = _no_route(spec, owner, serves=serves)
        case "HTTPRoute":
            verdict = _http_route(spec, owner, way, now)
        case "Ingress":
            verdict = _ingress(spec, owner, way)
        case other:
            assert_never(other)
    if error is None or way.route is not None or verdict.status == "False":
        return verdict
    if isinstance(error, InvalidSpec) or _serves_the_older_way(way, owner, previous):
        return _as_before(previous, error)
    if spec.route.type == "None":
        return verdict
    return _refused(error.reason, f"there is no {_object(spec, owner)} yet: {gist([str(error)], 'see the condition Degraded')}")


def _serves_the_older_way(way: Way, owner: Owner, previous: Mapping[str, Any] | None) -> bool:
    """Whether the route of the last spec that was applied is still there, and was ready."""
    owners = way.older["metadata"].get("ownerReferences", ()) if way.older is not None else ()
    return previous is not None and previous["status"] == "True" and any(one["uid"] == owner.uid for one in owners)


def _as_before(previous: Mapping[str, Any] | None, error: OperatorError | None) -> Condition:
    """Returns the condition of the last valid spec; without one, that the state of the route is unknown."""
    if previous is not None and previous["status"] != "Unknown":
        return Condition(TYPE, previous["status"], previous["reason"], previous["message"])
    return Condition(TYPE, "Unknown", error.reason if error else "Pending", "the operator creates the route once the spec is corrected")


def _no_route(spec: Spec, owner: Owner, *, serves: bool) -> Condition:
    when = " once spec.suspend is false and a pod is ready" if spec.suspend else "" if serves else " once a pod is ready"
    text = f"no route is requested (spec.route.type: None); clients inside the cluster reach the pods at {url(spec.route, owner)}{when}"
    return Condition(TYPE, "True", "NoRoute", text)


def _object(spec: Spec, owner: Owner) -> str:
    return f"{spec.route.type} {owner.namespace}/{owner.name}"


def _refused(reason: str, message: str) -> Condition:
    return Condition(TYPE, "False", reason, message)


def _pending(spec: Spec, owner: Owner, waits_for: str) -> Condition:
    return Condition(TYPE, "Unknown", "Pending", f"{_object(spec, owner)} is waiting for {waits_for}")


def _taken(rival: Claim) -> Condition:
    return _refused(
        "HostTaken",
        f"host {rival.host} is already in use: {rival} is older and has it with the path /v1, so requests go there; use another host in "
        "spec.route.hosts",
    )


def _ingress(spec: Spec, owner: Owner, way: Way) -> Condition:
    classes = way.ingress_classes or ()
    one_of = "one of " if len(classes) > 1 else ""
    choice = f"use {one_of}{', '.join(classes)}" if classes else "install an ingress controller, which creates one"
    if way.ingress_class.is_missing:
        given = (way.route or {}).get("spec", {}).get("ingressClassName") or spec.route.class_name
        return _refused(
            "MissingIngressClass",
            f"spec.route.className: IngressClass {given} does not exist, so no controller handles the Ingress; {choice}",
        )
    if way.route is None:
        return _pending(spec, owner, "the operator to apply it")
    given = way.route.get("spec", {}).get("ingressClassName") or (way.route["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    if given is None and way.ingress_classes is not None:
        return _refused(
            "NoIngressClass",
            f"spec.route.className is not set and the cluster has no default IngressClass, so no controller handles the Ingress; {choice}",
        )
    if way.rival is not None:
        return _taken(way.rival)
    entries = ((way.route.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = ", ".join(str(one.get("ip") or one.get("hostname")) for one in entries)
    what = f"{_object(spec, owner)} (class {given})" if given else _object(spec, owner)
    if addresses:
        return Condition(TYPE, "True", "Accepted", f"{what} has the address {addresses}, set by its controller")
    note = "it has no address in its status yet. Many controllers never set one, so this alone is not an error"
    return Condition(TYPE, "True", "Applied", f"{what} exists; {note}")


def _http_route(spec: Spec, owner: Owner, way: Way, now: datetime) -> Condition:
    parent = spec.route.parent_ref
    if parent is None:
        return _pending(spec, owner, "spec.route.parentRef")
    name = gateway_name(parent, owner)
    # 1. Does the Gateway exist, and its class, and does it allow the namespace?
    missing = _missing(name, way)
    if missing is not None:
        return missing
    if _allows_namespace(parent, owner, way) is False:
        allowed = gateways.describe_allowed(way.gateway.found or {}, parent.section_name)
        return _refused(
            "RouteNotAllowed",
            f"spec.route.parentRef: Gateway {name} does not allow routes of namespace {owner.namespace} ({allowed}), so the HTTPRoute "
            "is not created; ask the Gateway's owner to change allowedRoutes.namespaces of a listener, or use a Gateway that allows this "
            "namespace",
        )
    if way.route is None:
        return _pending(spec, owner, "the operator to apply it")
    # 2. What does its controller answer?
    is_new = (now - _changed_at(way.route)).total_seconds() < NO_CONTROLLER_SECONDS
    answers = [_answer(spec, owner, name, one, way, is_new=is_new) for one in gateways.parents(way.route, name, parent.section_name)]
    accepted = [one for one in answers if one.status == "True"]
    if answers and not accepted:
        return next((one for one in answers if one.status == "False"), answers[0])
    if not answers:
        if is_new:
            return _pending(spec, owner, f"the controller of Gateway {name} to process it")
        return _no_controller(spec, owner, name, way)
    # 3. Does another route receive the requests?
    return _taken(way.rival) if way.rival is not None else accepted[0]


def _missing(name: str, way: Way) -> Condition | None:
    namespace, _, gateway = name.partition("/")
    if way.gateway.is_missing:
        return _refused(
            "MissingGateway",
            f"spec.route.parentRef: Gateway {name} does not exist; create it, or name one that exists (kubectl get gateways -A lists them; "
            "a Gateway in another namespace needs parentRef.namespace)",
        )
    if way.gateway.found is not None and way.gateway_class.is_missing:
        return _refused(
            "MissingGatewayClass",
            f"Gateway {name} has the GatewayClass {_class_name(way)}, which does not exist, so no controller serves it; install the "
            f"controller that creates the class, or change spec.gatewayClassName: kubectl edit gateway {gateway} -n {namespace}",
        )
    return None


def _answer(spec: Spec, owner: Owner, name: str, parent: Manifest, way: Way, *, is_new: bool) -> Condition:
    """Returns the condition that follows from a controller's entry in the status of the route.

    `is_new` says that the route changed a moment ago, so an answer to its older spec does not count. Later it does, because some
    controllers do not report which spec they have processed.
    """
    conditions = {one.get("type"): one for one in parent.get("conditions") or ()}
    accepted, resolved = conditions.get("Accepted", {}), conditions.get("ResolvedRefs", {})
    what = _object(spec, owner)
    if is_new and way.route is not None and any(gateways.is_outdated(one, way.route) for one in (accepted, resolved)):
        if _has_left_out_timeouts(way):
            return _pending(spec, owner, f"Gateway {name} to accept it without timeouts, which it refused")
        return _pending(spec, owner, f"the controller of Gateway {name} to process its last change")
    if accepted.get("status") == "False":
        if spec.route.timeouts == "Auto" and _has_timeouts(way) and gateways.has_refused_timeouts(way.route, name):
            return _pending(spec, owner, f"Gateway {name} to accept it without timeouts, which it refuses")
        return _refused("RouteRefused", f"Gateway {name} refuses {what}: {_quoted(accepted)}; {_way_out(accepted, spec, owner, way)}")
    if resolved.get("status") == "False":
        return _refused(
            "RouteUnresolved",
            f"Gateway {name} cannot resolve what {what} refers to: {_quoted(resolved)}; {_look_at(owner)}",
        )
    if accepted.get("status") != "True":
        return _pending(spec, owner, f"Gateway {name} to accept it: {clause(accepted.get('message', '')) or 'it gives no reason'}")
    return Condition(TYPE, "True", "Accepted", f"Gateway {name} has accepted {what}{_remarks(spec, way)}")


def _quoted(condition: Manifest) -> str:
    return f"{condition.get('reason', '')}: {clause(condition.get('message', ''))}"


def _look_at(owner: Owner) -> str:
    return f"see kubectl describe httproute {owner.name} -n {owner.namespace}, and the log of the Gateway's controller"


def _way_out(answer: Manifest, spec: Spec, owner: Owner, way: Way) -> str:
    section = spec.route.parent_ref.section_name if spec.route.parent_ref else None
    gateway = way.gateway.found or {}
    match answer.get("reason"):
        case "NoMatchingListenerHostname":
            admitted = gateways.describe_hosts(gateway, section)
            listeners = f" (its listeners admit {admitted})" if admitted else ""
            return (
                f"use a host in spec.route.hosts that a listener of the Gateway admits{listeners}, or ask the Gateway's owner to add a "
                "listener for it"
            )
        case "NotAllowedByListeners":
            return (
                f"{gateways.ask_to_allow_kind(gateway, section)}, or name another Gateway in spec.route.parentRef (kubectl get gateways -A)"
            )
        case "NoMatchingParent" if section is not None:
            names = [str(one.get("name")) for one in gateways.listeners(gateway, None)]
            if section not in names:
                instead = f"set it to {' or '.join(map(quote, names))}, or leave it out" if names else "leave it out"
                return f"spec.route.parentRef.sectionName: the Gateway has no listener {section}; {instead}"
        case gateways.UNSUPPORTED if _has_timeouts(way):
            value = "Auto or Omit" if spec.route.timeouts == "Set" else "Omit"
            # Something else in the route may be unsupported; the answer to the route without timeouts then says so.
            does = "does" if "timeout" in str(answer.get("message")).lower() else "may"
            return (
                f"the Gateway {does} not support timeouts: set spec.route.timeouts to {value}; then an answer that takes longer than the "
                "Gateway's own timeout is cut off"
            )
        case gateways.UNSUPPORTED:
            of_class = f" (GatewayClass {_class_name(way)})" if way.gateway.found is not None else ""
            return (
                f"alise needs only hosts and the path prefix {API_PATH} of a Gateway, and Gateway {_gateway(spec, owner)}{of_class} "
                "cannot route these. Name a Gateway of another GatewayClass in spec.route.parentRef (kubectl get gateways -A), or remove "
                "spec.route.parentRef, set spec.route.type to Ingress and spec.route.className to one of kubectl get ingressclasses"
            )
    return _look_at(owner)


def _gateway(spec: Spec, owner: Owner) -> str:
    return gateway_name(spec.route.parent_ref, owner) if spec.route.parent_ref else ""


def _has_left_out_timeouts(way: Way) -> bool:
    """Returns whether the route has no timeouts because its Gateway refused them."""
    return TIMEOUTS_REFUSED_BY in ((way.route or {}).get("metadata", {}).get("annotations") or {})


def _has_timeouts(way: Way) -> bool:
    return any(rule.get("timeouts") for rule in (way.route or {}).get("spec", {}).get("rules") or ())


def _remarks(spec: Spec, way: Way) -> str:
    """Returns remarks on a route that is accepted."""
    text = ""
    if spec.route.timeouts == "Auto":
        if _has_left_out_timeouts(way):
            text += (
                "; the operator removed the route's timeouts because the Gateway refused them. An answer that takes longer than the "
                "Gateway's own timeout is cut off: raise that timeout at the Gateway if answers take longer"
            )
        elif len(gateways.supported_timeouts(way.gateway_class.found)) < len(TIMEOUTS):
            text += (
                ", without the timeouts that its class does not implement: the Gateway's own timeouts apply; raise them at the Gateway if "
                "answers take longer"
            )
    programmed = _condition(way.gateway, "Programmed")
    if programmed.get("status") == "False" and not gateways.is_outdated(programmed, way.gateway.found or {"metadata": {}}):
        text += f"; the Gateway reports that it is not programmed: {_quoted(programmed)}"
    return text


def _no_controller(spec: Spec, owner: Owner, name: str, way: Way) -> Condition:
    namespace, _, gateway = name.partition("/")
    unprocessed, class_name = f"no controller has processed {_object(spec, owner)}", _class_name(way)
    if way.gateway.found is None:
        return _refused(
            "NoController",
            f"{unprocessed}, and the operator may not read Gateways: does Gateway {name} exist, and is its controller running? "
            f"kubectl describe gateway {gateway} -n {namespace}",
        )
    of_class = way.gateway_class.found
    accepted = _condition(way.gateway_class, "Accepted")
    controller = f" {of_class['spec'].get('controllerName')}" if of_class is not None else ""
    if of_class is not None and accepted.get("status") != "True":
        return _refused(
            "NoController",
            f"{unprocessed}: the controller{controller} of GatewayClass {class_name} has not accepted the class; install or start it, see "
            f"kubectl describe gatewayclass {class_name}",
        )
    return _refused(
        "NoController",
        f"{unprocessed}: the controller{controller} of GatewayClass {class_name} does not answer for Gateway {name}; is it running, and "
        f"does it watch namespace {owner.namespace}? See kubectl describe gateway {gateway} -n {namespace}",
    )


def _condition(looked_up: Lookup, kind: str) -> Manifest:
    """Returns this condition in the object's status; empty when there is none."""
    conditions: list[Manifest] = ((looked_up.found or {}).get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def _class_name(way: Way) -> str:
    return str((way.gateway.found or {}).get("spec", {}).get("gatewayClassName"))


def _changed_at(route: Manifest) -> datetime:
    """Returns when the operator last changed the route."""
    meta = route["metadata"]
    times = [
        one.get("time") for one in meta.get("managedFields") or () if one.get("manager") == MANAGER and one.get("operation") == "Apply"
    ]
    stamp = max((time for time in times if time), default=meta.get("creationTimestamp"))
    return datetime.fromisoformat(stamp) if stamp else datetime.max.replace(tzinfo=UTC)
