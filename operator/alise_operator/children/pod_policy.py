"""Refuses what no pod of an AliseEngine may have: access to the node, to other namespaces, or to credentials that the spec does not name.

Pure: pod_patch.py calls `policy_problems()` with the merged template. The operator creates pods for users who may not be allowed to create
pods themselves. So the default is the restricted Pod Security Standard (kubernetes.io/docs/concepts/security/pod-security-standards, the
rules of 1.34) and more: no other ServiceAccount, no token, no choice of the node, no priority class of the system, and no Secret that a
field of the spec does not name. The operator's setting allows more, term by term (allowed.py), and every refusal names its term.

Fields are allowed by name: a field that Kubernetes added after this version of alise is refused until a version of alise knows it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import ENGINE_CONTAINER
from alise_operator.allowed import SETTING, VOLUME_TYPES, Allowed
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.pod_fields import (
    CONTAINER_FIELDS,
    CONTAINER_SECURITY_FIELDS,
    ENV_FROM_FIELDS,
    POD_FIELDS,
    POD_SECURITY_FIELDS,
    POD_VOLUME_TYPES,
    PROJECTIONS,
    SAFE_SYSCTLS,
    SELINUX_TYPES,
    VALUE_FROM_FIELDS,
)
from alise_operator.children.pod_lists import CONTAINER_LISTS
from alise_operator.children.pod_shape import FIELD
from alise_operator.errors import Problem
from alise_operator.flag_values import short as cut
from alise_operator.sentences import quote
from alise_operator.spec import Spec, named_secrets

# Why a volume of another type is refused.
_OUTSIDE: Final = "they give the pod storage outside the namespace"
_WHAT_VOLUMES_DO: Final = {
    "hostPath": "they give the pod the node's files",
    "csi": "they let the resource control a storage driver of the node",
    "flexVolume": "they run a program of the node",
    "gitRepo": "they run git on the node",
}
_NODES_OWN: Final = {"hostNetwork": "network", "hostPID": "process IDs", "hostIPC": "shared memory"}
_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
_HOOKS: Final = ("postStart", "preStop")
# Annotations that set profiles on older clusters.
_PROFILE_ANNOTATIONS: Final[Mapping[str, str]] = {
    "container.apparmor.security.beta.kubernetes.io/": "appArmorProfile",
    "container.seccomp.security.alpha.kubernetes.io/": "seccompProfile",
    "seccomp.security.alpha.kubernetes.io/": "seccompProfile",
}
# The field where a Secret for a variable of the engine is allowed, and where a reader of the spec sees which Secrets its pods get.
_AS_VARIABLE: Final = "Move the variable to spec.engine.env ({{name: {name}, valueFrom: {{secretKeyRef: …}}}})"
# A condition shows the refusal, so a value that would make it longer is not repeated as a suggestion.
_MAX_TEXT: Final = 600
_VALUE_TERMS: Final = (
    "hostPath",
    "csi",
    "capabilities",
    "nodeName",
    "priorityClassName",
    "secrets",
    "serviceAccountName",
    "sysctls",
    "unknownFields",
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refused field, and the term of the setting that would allow it."""

    field: str
    text: str
    term: str
    value: str | None = None

    def problem(self) -> Problem:
        # A single value is the smaller permission, so it is suggested if a setting can contain it and a condition can show it.
        value = self.value or ""
        with_value = self._text(f"{self.term}={value}")
        fits = value and value.isprintable() and "," not in value and len(with_value) <= _MAX_TEXT
        return Problem(self.field, with_value if fits and self.term in _VALUE_TERMS else self._text(self.term))

    def _text(self, term: str) -> str:
        return (
            f"{self.text}. Otherwise ask the operator's administrator to allow it: add {term} to the comma-separated list {SETTING} in the "
            "environment of the operator's Deployment"
        )


def policy_problems(template: Manifest, spec: Spec, owner: Owner, allowed: Allowed) -> Iterator[Problem]:
    """Yields a problem for each part of the merged template that the policy refuses and the operator's setting does not allow."""
    for refusal in _refusals(template, named_secrets(spec), owner):
        if not allowed.allows(refusal.term, refusal.value):
            yield refusal.problem()


def _refusals(template: Manifest, secrets: frozenset[str], owner: Owner) -> Iterator[_Refusal]:
    pod, field = _object(template.get("spec")), f"{FIELD}.spec"
    yield from _annotations(_object(_object(template.get("metadata")).get("annotations")))
    yield from _unknown(field, pod, POD_FIELDS)
    yield from _pod(field, pod, owner)
    for volume in _objects(pod.get("volumes")):
        yield from _volume(f"{field}.volumes[{volume.get('name')}]", volume, secrets)
    security = _object(pod.get("securityContext"))
    yield from _pod_security(f"{field}.securityContext", security)
    for key in CONTAINER_LISTS:
        for container in _objects(pod.get(key)):
            where = f"{field}.{key}[{container.get('name')}]"
            yield from _container(where, container, secrets)
            yield from _container_security(f"{where}.securityContext", _object(container.get("securityContext")), security)


def _pod(field: str, pod: Manifest, owner: Owner) -> Iterator[_Refusal]:
    for key, what in _NODES_OWN.items():
        if pod.get(key) not in (None, False):
            yield _Refusal(
                f"{field}.{key}", f"{quote(pod[key])} is not allowed, because the pod would use the node's {what}. Leave it out", key
            )
    for key in ("serviceAccountName", "serviceAccount"):
        if pod.get(key) not in (None, "", owner.name):
            account = (
                f"the ServiceAccount {owner.name!r}, which the operator creates for this engine and which has no permissions in the cluster"
            )
            why = f"because pods run as {account}"
            text = f"{quote(pod[key])} is not allowed, {why}. Leave it out"
            yield _Refusal(f"{field}.{key}", text, "serviceAccountName", str(pod[key]))
    if pod.get("automountServiceAccountToken") is not False:
        text = (
            f"{quote(pod.get('automountServiceAccountToken'))} is not allowed, because the token would let everything in the pod call the "
            "Kubernetes API. Leave it out"
        )
        yield _Refusal(f"{field}.automountServiceAccountToken", text, "automountServiceAccountToken")
    if pod.get("nodeName") not in (None, ""):
        instead = f"Use {field}.nodeSelector or {field}.affinity"
        text = f"{quote(pod['nodeName'])} is not allowed, because it bypasses the cluster's scheduler. {instead}"
        yield _Refusal(f"{field}.nodeName", text, "nodeName", str(pod["nodeName"]))
    if str(pod.get("priorityClassName") or "").startswith("system-"):
        text = (
            f"{quote(pod['priorityClassName'])} is not allowed, because it is for the cluster's own pods. Use a PriorityClass that does "
            "not begin with system- (kubectl get priorityclasses), or leave it out"
        )
        yield _Refusal(f"{field}.priorityClassName", text, "priorityClassName", str(pod["priorityClassName"]))


def _volume(field: str, volume: Manifest, secrets: frozenset[str]) -> Iterator[_Refusal]:
    for kind, source in volume.items():
        where = f"{field}.{kind}"
        if kind in VOLUME_TYPES:
            value = _object(source).get({"hostPath": "path", "csi": "driver"}.get(kind, ""))
            text = f"{kind} volumes are not allowed, because {_WHAT_VOLUMES_DO.get(kind, _OUTSIDE)}. Use a persistentVolumeClaim"
            yield _Refusal(where, text, kind, None if value is None else str(value))
        elif kind not in POD_VOLUME_TYPES and kind != "name":
            yield _unknown_field(where, kind)
    secret = _object(volume.get("secret")).get("secretName")
    yield from _secret(f"{field}.secret.secretName", secret, secrets)
    for index, source in enumerate(_objects(_object(volume.get("projected")).get("sources"))):
        where = f"{field}.projected.sources[{index}]"
        for kind in source:
            if kind in ("serviceAccountToken", "podCertificate"):
                text = f"a {kind} is not allowed, because it is a credential of the ServiceAccount. Leave it out"
                yield _Refusal(f"{where}.{kind}", text, kind)
            elif kind not in PROJECTIONS:
                yield _unknown_field(f"{where}.{kind}", kind)
        yield from _secret(f"{where}.secret.name", _object(source.get("secret")).get("name"), secrets)


def _container(field: str, container: Manifest, secrets: frozenset[str]) -> Iterator[_Refusal]:
    yield from _unknown(field, container, CONTAINER_FIELDS)
    for port in _objects(container.get("ports")):
        if port.get("hostPort") not in (None, 0):
            text = f"{quote(port['hostPort'])} is not allowed, because it is a port of the node. Use the Service or a route"
            yield _Refusal(f"{field}.ports[{port.get('containerPort')}].hostPort", text, "hostPort")
    for variable in _objects(container.get("env")):
        source, where = _object(variable.get("valueFrom")), f"{field}.env[{variable.get('name')}].valueFrom"
        yield from _unknown(where, source, VALUE_FROM_FIELDS)
        way_out = _AS_VARIABLE.format(name=cut(str(variable.get("name")))) if container.get("name") == ENGINE_CONTAINER else ""
        yield from _secret(f"{where}.secretKeyRef.name", _object(source.get("secretKeyRef")).get("name"), secrets, way_out)
    for index, source in enumerate(_objects(container.get("envFrom"))):
        yield from _unknown(f"{field}.envFrom[{index}]", source, ENV_FROM_FIELDS)
        yield from _secret(f"{field}.envFrom[{index}].secretRef.name", _object(source.get("secretRef")).get("name"), secrets)
    handlers = [(key, container.get(key)) for key in _PROBES]
    handlers += [(f"lifecycle.{key}", _object(container.get("lifecycle")).get(key)) for key in _HOOKS]
    for name, handler in handlers:
        for kind in ("httpGet", "tcpSocket"):
            host = _object(_object(handler).get(kind)).get("host")
            if host not in (None, ""):
                text = f"{quote(host)} is not allowed, because the node would connect to another host. Leave it out to use the pod"
                yield _Refusal(f"{field}.{name}.{kind}.host", text, "probeHost")


def _pod_security(field: str, security: Manifest) -> Iterator[_Refusal]:
    yield from _unknown(field, security, POD_SECURITY_FIELDS)
    yield from _security(field, security)
    for sysctl in _objects(security.get("sysctls")):
        if str(sysctl.get("name")) not in SAFE_SYSCTLS:
            text = f"{quote(sysctl.get('name'))} is not allowed, because it is not one of those that affect only the pod"
            yield _Refusal(f"{field}.sysctls", text, "sysctls", str(sysctl.get("name")))


def _container_security(field: str, security: Manifest, pod: Manifest) -> Iterator[_Refusal]:
    yield from _unknown(field, security, CONTAINER_SECURITY_FIELDS)
    yield from _security(field, security)
    if security.get("privileged") not in (None, False):
        yield _Refusal(
            f"{field}.privileged",
            f"{quote(security['privileged'])} is not allowed, because the container would have full control of the node. Leave it out",
            "privileged",
        )
    if (given := security.get("allowPrivilegeEscalation")) is not False:
        text = f"{quote(given)} is not allowed. It must be false"
        yield _Refusal(f"{field}.allowPrivilegeEscalation", text, "allowPrivilegeEscalation")
    capabilities = _object(security.get("capabilities"))
    drop, add = capabilities.get("drop"), capabilities.get("add")
    if not isinstance(drop, list) or "ALL" not in drop:
        yield _Refusal(f"{field}.capabilities.drop", f'{quote(drop)} is not allowed. It must be ["ALL"]', "capabilities")
    for name in add if isinstance(add, list) else ():
        if name != "NET_BIND_SERVICE":
            text = f"{quote(name)} is not allowed. Only NET_BIND_SERVICE may be added"
            yield _Refusal(f"{field}.capabilities.add", text, "capabilities", str(name))
    if security.get("procMount") not in (None, "Default"):
        yield _Refusal(f"{field}.procMount", f"{quote(security['procMount'])} is not allowed. It must be Default", "procMount")
    # The pod's value applies where the container has none; wrong values have been refused above.
    if security.get("runAsNonRoot", pod.get("runAsNonRoot")) is None:
        yield _Refusal(
            f"{field}.runAsNonRoot", "null is not allowed. It must be true, here or in the pod's securityContext", "runAsNonRoot"
        )
    if security.get("seccompProfile", pod.get("seccompProfile")) is None:
        text = "null is not allowed. It must be {type: RuntimeDefault}, here or in the pod's securityContext"
        yield _Refusal(f"{field}.seccompProfile", text, "seccompProfile")


def _security(field: str, security: Manifest) -> Iterator[_Refusal]:
    """Yields refusals that a pod's and a container's security context have in common."""
    if security.get("runAsNonRoot") not in (None, True):
        yield _Refusal(f"{field}.runAsNonRoot", f"{quote(security['runAsNonRoot'])} is not allowed. It must be true", "runAsNonRoot")
    if security.get("runAsUser") == 0:
        yield _Refusal(
            f"{field}.runAsUser",
            "0 is not allowed, because it is root. Use another user, or null for the cluster's own choice",
            "runAsUser",
        )
    for key in ("seccompProfile", "appArmorProfile"):
        kind = _object(security.get(key)).get("type")
        if security.get(key) is not None and kind not in ("RuntimeDefault", "Localhost"):
            yield _Refusal(f"{field}.{key}.type", f"{quote(kind)} is not allowed. It must be RuntimeDefault or Localhost", key)
    options = _object(security.get("seLinuxOptions"))
    if options.get("type") not in SELINUX_TYPES:
        text = f"{quote(options['type'])} is not allowed. It must be one of {', '.join(kind for kind in SELINUX_TYPES if kind)}"
        yield _Refusal(f"{field}.seLinuxOptions.type", text, "seLinuxOptions")
    for key in ("user", "role"):
        if options.get(key) not in (None, ""):
            yield _Refusal(f"{field}.seLinuxOptions.{key}", f"{quote(options[key])} is not allowed. Leave it out", "seLinuxOptions")
    if security.get("windowsOptions") is not None:
        yield _Refusal(
            f"{field}.windowsOptions", "these options are not allowed, because engines run on Linux. Leave them out", "windowsOptions"
        )


def _annotations(annotations: Manifest) -> Iterator[_Refusal]:
    for name, value in annotations.items():
        for prefix, term in _PROFILE_ANNOTATIONS.items():
            if name.startswith(prefix) and value not in ("runtime/default", "docker/default") and not str(value).startswith("localhost/"):
                text = f"{quote(value)} is not allowed. It must be runtime/default or a localhost/ profile"
                yield _Refusal(f"{FIELD}.metadata.annotations[{name}]", text, term)


def _secret(field: str, name: object, secrets: frozenset[str], way_out: str = "") -> Iterator[_Refusal]:
    if name is not None and not (isinstance(name, str) and name in secrets):
        instead = way_out or "Name it in a variable of spec.engine.env (valueFrom.secretKeyRef) as well, which permits it here"
        yield _Refusal(field, f"Secret {quote(name)} may not be referenced from podTemplate. {instead}", "secrets", str(name))


def _unknown(field: str, given: Mapping[str, Any], known: frozenset[str]) -> Iterator[_Refusal]:
    for key in given:
        if key not in known:
            yield _unknown_field(f"{field}.{key}", key)


def _unknown_field(field: str, key: str) -> _Refusal:
    text = "is not a field of pods that this version of alise knows: is it spelled correctly? If Kubernetes added it lately, upgrade alise"
    return _Refusal(field, text, "unknownFields", key)


def _object(value: object) -> Manifest:
    """Returns the value if it is an object, else an empty one; the API server refuses the wrong type."""
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Manifest]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
