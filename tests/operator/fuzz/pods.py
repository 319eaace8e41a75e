"""Patches of a pod template, from the schema of pods that Kubernetes publishes: right fields, wrong ones, and what would harm a node.

`specs.py` draws them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
from hypothesis import strategies as st

from tests.operator.fuzz.values import INTEGERS, JSON, QUANTITIES, RESOURCE_NAMES, TEXTS, Values, several
from tests.operator.pod_schema import TEMPLATE

_SCHEMA: Final = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.37.0-local" / "_definitions.json"
_CORE: Final = "io.k8s.api.core.v1"
# By the name of a field, whatever object it is in: names that alise's own parts have, and others.
_BY_NAME: Final[dict[str, tuple[Any, ...]]] = {
    "name": ("engine", "scheduler", "extra", "run", "scratch", "shm", "history", "model-cache", "api-keys", "http", "metrics", "hub",
             "HF_TOKEN",
             "VLLM_CPU_KVCACHE_SPACE", "ALISE_POLICY", "HOME", "a/b", "a b", "\x1b[31m", "ü", "", "a" * 300),
    "mountPath": ("/run/alise", "/run/alise/", "/scratch", "//scratch", "/scratch/../run/alise", "/dev/shm", "/x", "relative",
                  "/etc/alise/keys"),
    "containerPort": (8000, 9400, 1, 65536, 0, -1, "http"),
    "protocol": ("TCP", "UDP", "tcp"),
    "path": ("/", "/health", "/var/run/docker.sock", ".."),
    "image": ("localhost/a:dev", "", "a b"),
    "serviceAccountName": ("tiny", "default", "admin", ""),
    "secretName": ("hub", "keys", "other", "a/b"),
    "command": (["sh"], [], ["tini", "--", "alise-engine"], "sh"),
    "restartPolicy": ("Always", "Never", "OnFailure", "x"),
    "terminationGracePeriodSeconds": (0, 29, 150, 330, 100_000, -1, 2**31, 1.5),
    "priorityClassName": ("system-node-critical", "high", ""),
    "runAsUser": (0, 1, 65532, -1, 2**63 - 1),
    "whenUnsatisfiable": ("ScheduleAnyway", "DoNotSchedule", "x"),
    "topologyKey": ("kubernetes.io/hostname", "zone", ""),
    "type": ("RuntimeDefault", "Localhost", "Unconfined", "spc_t", "Directory", "x"),
    "drop": (["ALL"], [], ["NET_RAW"], "ALL"),
    "add": (["NET_BIND_SERVICE"], ["SYS_ADMIN"], [1], None),
    "labels": ({"alise.dev/engine": "tiny"}, {"alise.dev/engine": "other"}, {"a": "b"}, {"a b": "c"}, {"a": "x" * 64}, {}),
    "annotations": ({"a": "b"}, {"container.apparmor.security.beta.kubernetes.io/engine": "unconfined"}, {"\x1b[31m/x": 1}, {"a": "b\nc"}),
    "medium": ("Memory", "", "HugePages", "x"),
}  # fmt: skip
# Where harm is, and where alise's own parts are: drawn more often than the schema's other fields.
_OF_PODS: Final = ("metadata", "spec", "labels", "annotations", "containers", "initContainers", "volumes", "securityContext", "nodeName",
                   "serviceAccountName", "hostNetwork", "hostPID")  # fmt: skip
_OF_CONTAINERS: Final = ("name", "env", "envFrom", "volumeMounts", "ports", "resources", "lifecycle", "readinessProbe", "securityContext")
_DEEPER: Final = ("hostPort", "privileged", "capabilities", "sysctls", "limits", "valueFrom", "hostPath", "secret", "csi", "projected",
                  "serviceAccountToken")  # fmt: skip
_OFTEN: Final = frozenset({*_OF_PODS, *_OF_CONTAINERS, *_DEEPER})
_KEYED: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
_DIRECTIVES: Final = st.sampled_from(("delete", "replace", "merge", "x", None, 1, ["a"]))
_DEPTH: Final = 9


@cache
def _definitions() -> dict[str, Any]:
    document = json.loads(_SCHEMA.read_text())
    found: dict[str, Any] = document.get("definitions") or document["$defs"]
    return found


def _resolved(node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The node's definition and its name; a node of its own has none."""
    reference = node.get("$ref") or next(
        (one["$ref"] for key in ("allOf", "anyOf", "oneOf") for one in node.get(key, ()) if "$ref" in one), None
    )
    name = reference.rpartition("/")[2] if reference else ""
    return name, _definitions()[name] if name else node


@st.composite
def _value(draw: st.DrawFn, node: dict[str, Any], field: str, depth: int) -> Any:
    turn = draw(st.integers(0, 60))
    if turn == 60:
        return draw(JSON)
    if turn == 59:
        return None
    if field in _BY_NAME:
        return draw(st.sampled_from(_BY_NAME[field]))
    name, node = _resolved(node)
    if name.endswith("Quantity"):
        return draw(QUANTITIES)
    if name.endswith("IntOrString"):
        return draw(INTEGERS | TEXTS)
    kinds = node.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if "properties" in node:
        return draw(_object(node, field, depth))
    if "array" in kinds:
        item = _value(node["items"], "" if field not in _KEYED else f"{field}[]", depth + 1)
        return several(draw, item, 0 if depth >= _DEPTH else 1, 2)
    if "object" in kinds:
        inner = node.get("additionalProperties")
        keys = RESOURCE_NAMES if field in ("limits", "requests", "overhead") else TEXTS
        return draw(st.dictionaries(keys, _value(inner, "", depth + 1) if isinstance(inner, dict) else TEXTS, max_size=2))
    if "boolean" in kinds:
        return draw(st.booleans())
    if "integer" in kinds or "number" in kinds:
        return draw(INTEGERS)
    return draw(st.sampled_from(node["enum"]) if "enum" in node else TEXTS)


@st.composite
def _object(draw: st.DrawFn, node: dict[str, Any], field: str, depth: int) -> dict[str, Any]:
    properties = node["properties"]
    chosen = list(dict.fromkeys(several(draw, _fields(properties), 1, 1 if depth >= _DEPTH else 3)))
    key = _KEYED.get(field.removesuffix("[]"))
    if key in properties and key not in chosen and draw(st.integers(0, 9)):
        chosen = [key, *chosen]
    found = {name: draw(_value(properties[name], name, depth + 1)) for name in chosen}
    turn = draw(st.integers(0, 40))
    if turn == 40:
        found["$patch"] = draw(_DIRECTIVES)
    elif turn == 39:
        found["$retainKeys"] = draw(st.just(list(found)) | JSON)
    elif turn == 38:
        found[draw(TEXTS | st.sampled_from(("$deleteFromPrimitiveList/a", "$setElementOrder/containers", "newField")))] = draw(JSON)
    return found


def _fields(properties: dict[str, Any]) -> Values:
    """Names of fields: half of the time one of those where harm is."""
    often, every = sorted(_OFTEN & properties.keys()), st.sampled_from(sorted(properties))
    return st.sampled_from(often) | every if often else every


def _of(definition: str, field: str) -> Values:
    return _value({"$ref": f"#/definitions/{definition}"}, field, 4)


@st.composite
def _pod_patch(draw: st.DrawFn) -> Any:
    """One field of the pod, or of one of its containers, so that what is below it is reached often."""
    pod, container = _definitions()[f"{_CORE}.PodSpec"]["properties"], _definitions()[f"{_CORE}.Container"]["properties"]
    match draw(st.integers(0, 3)):
        case 0:
            return draw(_value({"$ref": f"#/definitions/{TEMPLATE}"}, "", 0))
        case 1:
            field = draw(_fields(pod))
            return {"spec": {field: draw(_value(pod[field], field, 1))}}
        case 2:
            field = draw(_fields(container))
            name, where = draw(st.sampled_from(("engine", "scheduler", "extra"))), draw(st.sampled_from(("containers", "initContainers")))
            item = {"name": name, field: draw(_value(container[field], field, 2))}
            return {"spec": {where: [item | ({"image": "x"} if name == "extra" else {})]}}
        case _:
            labels, tolerations = draw(st.sampled_from(_BY_NAME["labels"])), [{"operator": "Exists"}]
            return {"metadata": {"labels": labels}, "spec": {"nodeSelector": {"a": "b"}, "tolerations": tolerations}}


POD_PATCHES: Final[Values] = _pod_patch()
ENV_SOURCES: Final[Values] = _of(f"{_CORE}.EnvVarSource", "valueFrom")
PEERS: Final[Values] = _of("io.k8s.api.networking.v1.NetworkPolicyPeer", "from")
EGRESS_RULES: Final[Values] = _of("io.k8s.api.networking.v1.NetworkPolicyEgressRule", "egress")
