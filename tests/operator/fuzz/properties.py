"""What holds for every spec, however wrong it is. A property takes a resource's `spec` and raises Broken, or what the operator raised.

`run.py` and `agreement.py` try them.
"""

import asyncio
import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from alise_contract.names import ENGINE_LABEL, ENGINE_PORT, RUN_DIR
from alise_operator.allowed import TERMS, Allowed
from alise_operator.apply import OWNED_KINDS, digest
from alise_operator.children import children
from alise_operator.children.adapters import adapters_name
from alise_operator.children.meta import Manifest
from alise_operator.children.picker import picker_name
from alise_operator.children.pod_policy import policy_problems
from alise_operator.errors import InvalidSpec, SpecError
from alise_operator.rules import check
from alise_operator.spec import Spec, parse
from tests.operator.builders import CURRENT, OLD, OWNER, raw_spec
from tests.operator.fake_kube import FakeKube
from tests.operator.world import KEY, World

# A longer text would be cut, and the way out is at its end.
MAX_TEXT: Final = 600
MAX_PROBLEM: Final = 1000
MAX_MESSAGE: Final = 1500
# An operator whose settings allow everything.
_LENIENT: Final = replace(CURRENT, allowed=Allowed(TERMS), route_annotations=frozenset({"*"}))
_FIELD: Final = re.compile(r"(spec|metadata)($|[.\[])")
GOOD: Final = raw_spec()
# What an API server may say of a child; its text is quoted in a condition.
_REFUSAL: Final = 'Deployment.apps "tiny" is invalid: spec.template: Invalid value: "' + "\x1b[31mx\n" * 500 + '"'


class Broken(AssertionError):
    """A property does not hold."""


Property = Callable[[Any], None]


def refusals_name_their_fields(raw: Any) -> None:
    """Nothing but SpecError is raised, whatever the operator's settings; each problem begins with the field, is short and printable."""
    for cluster in (CURRENT, OLD, _LENIENT):
        try:
            spec = parse(raw)
            check(spec, OWNER.name)
            children(spec, OWNER, cluster)
        except InvalidSpec as error:
            _expect(error.problems, "a refusal without a problem")
            for problem in error.problems:
                _expect(_FIELD.match(problem.field), f"a refusal that names no field: {problem}"[:500])
                _expect(problem.text.strip(), f"a refusal without a text: {problem.field}"[:500])
                _expect(len(problem.text) <= MAX_TEXT, f"a refusal of {len(problem.text):,} characters: {problem}"[:500])
                _expect(len(str(problem)) <= MAX_PROBLEM, f"a problem of {len(str(problem)):,} characters")
                _expect(str(problem).isprintable(), f"a refusal that is not printable: {str(problem)!r}"[:500])
        except SpecError as error:
            _expect(_FIELD.match(str(error)), f"a refusal that names no field: {error}"[:500])


def children_are_whole(raw: Any) -> None:
    """Children are JSON, belong to the resource, and their pods keep the policy and what alise needs."""
    for cluster in (CURRENT, OLD):
        found = _built(raw, cluster)
        if found is None:
            continue
        spec, manifests = found
        _expect(json.loads(json.dumps(manifests, allow_nan=False)) == manifests, "children that JSON changes")
        for manifest in manifests:
            meta = manifest["metadata"]
            _expect(meta["name"] in (OWNER.name, picker_name(OWNER), adapters_name(OWNER)), f"a child of another name: {meta}"[:500])
            _expect(meta["namespace"] == OWNER.namespace, f"a child in another namespace: {meta}"[:500])
            _expect(meta["ownerReferences"][0]["uid"] == OWNER.uid, "a child without its owner")
        pods = {one["metadata"]["name"]: one["spec"]["template"] for one in manifests if one["kind"] == "Deployment"}
        _check_pod(pods.pop(OWNER.name), spec)
        for template in pods.values():
            _check_picker(template)


def _check_pod(template: Manifest, spec: Spec) -> None:
    problems = list(policy_problems(template, spec, OWNER, Allowed()))
    _expect(not problems, f"a pod that the policy refuses: {problems}"[:500])
    pod = template["spec"]
    _expect(template["metadata"]["labels"][ENGINE_LABEL] == OWNER.name, "a pod that the Service does not find")
    _expect(pod.get("automountServiceAccountToken") is False, "a pod with a token")
    _expect(pod["terminationGracePeriodSeconds"] >= spec.drain_seconds, "a pod that is cut off while it drains")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    _expect(not any("hostPath" in volume for volume in volumes.values()), "a path of the node")
    containers = {one["name"]: one for key in ("containers", "initContainers") for one in pod.get(key) or ()}
    for name in ("engine", "scheduler"):
        run = [mount for mount in containers[name]["volumeMounts"] if mount["mountPath"] == RUN_DIR]
        _expect(run == [{"name": "run", "mountPath": RUN_DIR}], f"the {name} does not have the sockets")
        _expect("preStop" in containers[name]["lifecycle"], f"the {name} does not drain")
    _expect(volumes["run"]["emptyDir"]["medium"] == "Memory", "sockets that are not in memory")
    _expect(any(port["containerPort"] == ENGINE_PORT for port in containers["engine"]["ports"]), "an engine without its port")
    for name, one in containers.items():
        security = one.get("securityContext") or {}
        _expect(security.get("allowPrivilegeEscalation") is False, f"{name} may become root")
        _expect(security.get("privileged") in (None, False), f"{name} is privileged")


def _check_picker(template: Manifest) -> None:
    pod = template["spec"]
    _expect(not any("hostPath" in volume for volume in pod.get("volumes", ())), "a picker with a path of the node")
    _expect(pod["securityContext"].get("runAsNonRoot") is True, "a picker that may be root")
    for one in pod["containers"]:
        security = one["securityContext"]
        _expect(security["allowPrivilegeEscalation"] is False, "a picker that may become root")
        _expect(security["readOnlyRootFilesystem"] is True, "a picker that can write to its root")


def the_same_spec_gives_the_same_children(raw: Any) -> None:
    """Twice, and whatever the order of its keys: a rollout comes of a change alone."""
    before = copy.deepcopy(raw)
    first, second, turned = (_built(one, CURRENT) for one in (raw, raw, _turned(raw)))
    _expect(raw == before, "building changed the spec")
    digests = {digest(found[1]) if found is not None else "" for found in (first, second, turned)}
    _expect(len(digests) == 1, "the same spec gave other children")


def nothing_is_half_applied(raw: Any) -> None:
    """After a good spec was applied: what cannot be applied leaves its children as they are, but for the number of pods."""
    asyncio.run(_half_applied(raw, ""))


def a_refused_child_leaves_the_others(raw: Any) -> None:
    """The API server refuses one kind of child: those of the good spec stay as they are, but for the number of pods."""
    if _built(raw, CURRENT) is None:
        return
    kinds = sorted(OWNED_KINDS)
    refused = OWNED_KINDS[kinds[len(json.dumps(raw)) % len(kinds)]][0].plural
    asyncio.run(_half_applied(raw, refused))


async def _half_applied(raw: Any, refused: str) -> None:
    world = World()
    world.kube.put_engine(copy.deepcopy(GOOD))
    async with world.poller:
        _expect(await world.reconciler.reconcile(KEY) is None, "a good spec is refused")
        before, written = _children_of(world.kube), len(world.kube.writes)
        world.kube.put_engine(copy.deepcopy(raw), generation=2)
        if refused:
            world.kube.refused[refused] = _REFUSAL
        error = await world.reconciler.reconcile(KEY)
        if error is not None:
            _expect(_children_of(world.kube) == before, f"half applied: {world.kube.writes[written:]}, {error}"[:500])
        _check_status(world, is_wrong=error is not None)
        if refused:
            return
        if _spec_of(world.kube) != raw:
            # Autoscaling set the number of pods, which is a change of the spec.
            error = await world.reconciler.reconcile(KEY)
        written = len(world.kube.writes)
        again = await world.reconciler.reconcile(KEY)
        _expect(type(again) is type(error), f"another outcome at the second look: {error}, {again}"[:500])
        _expect(error is not None or world.kube.writes[written:] == [], "a spec that did not change is applied again")


def _check_status(world: World, *, is_wrong: bool) -> None:
    status = world.status()
    json.dumps(status, allow_nan=False)
    conditions = {one["type"]: one for one in status["conditions"]}
    for one in conditions.values():
        _expect(0 < len(one["message"]) <= MAX_MESSAGE, f"{one['type']}: a message of {len(one['message']):,} characters")
        _expect(one["message"].isprintable(), f"{one['type']}: a message that is not printable: {one['message']!r}"[:500])
    _expect(not is_wrong or conditions["Degraded"]["status"] == "True", "what is wrong is not Degraded")
    for (plural, _, _), event in world.kube.objects.items():
        _expect(plural != "events" or event["message"].isprintable(), "an event that is not printable")


def _spec_of(kube: FakeKube) -> Any:
    """The spec of the only resource."""
    (found,) = (stored["spec"] for place, stored in kube.objects.items() if place[0] == "aliseengines")
    return found


def _children_of(kube: FakeKube) -> dict[Any, Any]:
    """The children without what the API server counts, and without the number of pods."""
    found = {}
    for place, stored in kube.objects.items():
        if place[0] not in ("aliseengines", "events"):
            kept = {key: value for key, value in stored.items() if key != "metadata"}
            if place[0] == "deployments":
                kept["spec"] = {key: value for key, value in kept["spec"].items() if key != "replicas"}
            found[place] = copy.deepcopy(kept)
    return found


def _built(raw: Any, cluster: Any) -> tuple[Spec, list[Manifest]] | None:
    """None for a spec that is refused."""
    try:
        spec = parse(raw)
        check(spec, OWNER.name)
        return spec, children(spec, OWNER, cluster)
    except SpecError:
        return None


def _turned(value: Any) -> Any:
    """The value with the keys of its objects in the other order."""
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


def _expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


PROPERTIES: Final[Mapping[str, Property]] = {
    function.__name__: function
    for function in (
        refusals_name_their_fields,
        children_are_whole,
        the_same_spec_gives_the_same_children,
        nothing_is_half_applied,
        a_refused_child_leaves_the_others,
    )
}
