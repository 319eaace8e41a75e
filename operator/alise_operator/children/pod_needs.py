"""Checks that a patched pod template kept what alise needs of the generated one: sockets, ports, API keys, drain time, places to write.

Pure: pod_patch.py calls `need_problems()` with the merged template. Without these checks a pod would start and fail far from the cause.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alise_contract.names import ADAPTERS_DIR, AUTH_DIR, AUTH_DIR_ENV, ENGINE_CONTAINER, RUN_DIR, SCHEDULER_CONTAINER
from alise_operator.children.devices import device_problems
from alise_operator.children.meta import Manifest, Owner, selector
from alise_operator.children.pod_lists import CONTAINER_LISTS
from alise_operator.children.pod_shape import FIELD
from alise_operator.errors import Problem
from alise_operator.flag_values import short as cut
from alise_operator.memory_rules import memory_problems, scheduler_memory_problems
from alise_operator.rules import ENV_FIELDS, HARMLESS_VALUES, unsupported_env
from alise_operator.sentences import quote
from alise_operator.spec import Spec

AUTH_VOLUME: Final = "api-keys"
ADAPTERS_VOLUME: Final = "adapter-list"
# Volumes whose source may not change. The others are places to write to, which may be elsewhere.
_FIXED_VOLUMES: Final = {
    "run": "it holds the sockets between engine and scheduler",
    AUTH_VOLUME: "it holds the API keys",
    ADAPTERS_VOLUME: "it holds the list of adapters",
}
# Mounts that may not change, and why.
_FIXED_MOUNTS: Final = {
    RUN_DIR: "it holds the sockets between engine and scheduler",
    AUTH_DIR: "it holds the API keys",
    ADAPTERS_DIR: "it holds the list of adapters",
}
# By container: the fields to use instead of a command.
_INSTEAD_OF_COMMAND: Final = {
    ENGINE_CONTAINER: (
        "Leave it out: flags go into spec.engine.args, variables into spec.engine.env, another image into spec.engine.image"
    ),
    SCHEDULER_CONTAINER: (
        "Leave it out: settings go into spec.scheduling, spec.admission and spec.predictor, another image into spec.scheduling.image"
    ),
}


def need_problems(template: Manifest, generated: Manifest, spec: Spec, owner: Owner) -> Iterator[Problem]:
    """Yields a problem for each part of the generated template that the merged one lost."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    for key, value in selector(owner).items():
        if labels.get(key) != value:
            yield Problem(
                f"{FIELD}.metadata.labels", f"must keep {key}={value}, because the Service and the Deployment select the pods by it"
            )
    if "spec" not in template:
        yield Problem(f"{FIELD}.spec", "null is not allowed; it must be an object")
        return
    if template["spec"].get("ephemeralContainers"):
        yield Problem(f"{FIELD}.spec.ephemeralContainers", "cannot be in a template: they belong to a running pod; use kubectl debug")
    yield from _drain_time(template, generated)
    yield from _volumes(template, generated)
    for key in CONTAINER_LISTS:
        for ours in generated["spec"].get(key, ()):
            name = ours["name"]
            theirs = next((one for one in template["spec"].get(key) or () if one["name"] == name), None)
            if theirs is None:
                yield Problem(f"{FIELD}.spec.{key}", f"must keep the container {name!r}")
            else:
                yield from _container(f"{FIELD}.spec.{key}[{name}]", theirs, ours, spec)
    yield from device_problems(template, spec)


def _container(field: str, theirs: Manifest, ours: Manifest, spec: Spec) -> Iterator[Problem]:
    name = ours["name"]
    yield from _mounts(field, theirs, ours)
    for port in ours["ports"]:
        if not any(_holds(one, port) for one in theirs.get("ports") or ()):
            wanted = f"{port['name']} ({port['containerPort']})"
            yield Problem(f"{field}.ports", f"must keep the port {wanted}, because probes, the Service and the operator use it")
    yield from _env(field, theirs, ours)
    yield from _commands(field, theirs, ours)
    if theirs.get("restartPolicy") != ours.get("restartPolicy"):
        given = quote(theirs.get("restartPolicy"))
        yield Problem(f"{field}.restartPolicy", f"{given} cannot be set, because the {name} runs as long as the pod; leave it out")
    if name == ENGINE_CONTAINER:
        for variable in theirs.get("env") or ():
            value = variable.get("value")
            if value not in HARMLESS_VALUES and (why := unsupported_env(spec.engine).get(variable["name"])) is not None:
                yield Problem(f"{field}.env", f"{variable['name']}={cut(str(value))}: {why}; leave it out")
    limit, at = ((theirs.get("resources") or {}).get("limits") or {}).get("memory"), f"{field}.resources.limits.memory"
    if limit != (ours["resources"].get("limits") or {}).get("memory"):
        yield from memory_problems(at, limit, spec) if name == ENGINE_CONTAINER else scheduler_memory_problems(at, limit)


def _mounts(field: str, theirs: Manifest, ours: Manifest) -> Iterator[Problem]:
    mounts = theirs.get("volumeMounts") or ()
    own = {mount["mountPath"]: mount for mount in ours["volumeMounts"]}
    for path, mount in own.items():
        given = next((one for one in mounts if one["mountPath"] == path), None)
        if path in _FIXED_MOUNTS:
            if given != mount:
                yield Problem(f"{field}.volumeMounts", f"must keep the mount {path} unchanged, because {_FIXED_MOUNTS[path]}")
        elif given is None:
            yield Problem(f"{field}.volumeMounts", f"must keep the mount {path}, because the {ours['name']} writes there and nowhere else")
        elif given.get("readOnly"):
            yield Problem(f"{field}.volumeMounts[{path}].readOnly", f"true is not allowed, because the {ours['name']} writes there")
    for path in (mount["mountPath"] for mount in mounts):
        # Linux treats two slashes at the beginning as one, normpath does not.
        plain = posixpath.normpath("/" + path.lstrip("/"))
        if path not in own and plain in own:
            yield Problem(f"{field}.volumeMounts[{path}]", f"would hide {plain}; write the path as {plain}, or mount elsewhere")


def _volumes(template: Manifest, generated: Manifest) -> Iterator[Problem]:
    given = {volume["name"]: volume for volume in template["spec"].get("volumes") or ()}
    for volume in generated["spec"]["volumes"]:
        name = volume["name"]
        if name not in given:
            yield Problem(
                f"{FIELD}.spec.volumes",
                f"must keep the volume {name!r}; all volumes except {', '.join(_FIXED_VOLUMES)} may have another source",
            )
        elif name in _FIXED_VOLUMES and given[name] != volume:
            yield Problem(
                f"{FIELD}.spec.volumes[{name}]", f"must stay unchanged, because {_FIXED_VOLUMES[name]}; use another name for yours"
            )


def _env(field: str, theirs: Manifest, ours: Manifest) -> Iterator[Problem]:
    """The operator's variables must not change: fields of the spec determine them, and the operator calculates with the same values."""
    given = {variable["name"]: variable for variable in theirs.get("env") or ()}
    for variable in ours["env"]:
        name = variable["name"]
        if given.get(name) == variable or (ours["name"] == ENGINE_CONTAINER and name not in ENV_FIELDS):
            continue
        if name == AUTH_DIR_ENV:
            yield Problem(f"{field}.env", f"must keep {name} unchanged, because without it no API keys are required")
            continue
        instead = ENV_FIELDS.get(name, "spec.scheduling, spec.kvOffload, spec.admission or spec.predictor")
        yield Problem(f"{field}.env", f"must keep {name} unchanged, because the operator sets it" + (f"; use {instead}" if instead else ""))


def _drain_time(template: Manifest, generated: Manifest) -> Iterator[Problem]:
    """The grace period must leave open streams the time to finish."""
    needed, grace = generated["spec"]["terminationGracePeriodSeconds"], template["spec"].get("terminationGracePeriodSeconds")
    if not isinstance(grace, int) or isinstance(grace, bool) or grace < needed:
        text = f"{quote(grace)} would cut off streams: it must be {needed} or more; lower spec.drainSeconds for a shorter one"
        yield Problem(f"{FIELD}.spec.terminationGracePeriodSeconds", text)


def _commands(field: str, theirs: Manifest, ours: Manifest) -> Iterator[Problem]:
    given = (theirs.get("lifecycle") or {}).get("preStop")
    if given != ours["lifecycle"]["preStop"]:
        text = f"{quote(given)} would cut off streams: leave it out; spec.drainSeconds sets its length"
        yield Problem(f"{field}.lifecycle.preStop", text)
    name = ours["name"]
    for key, what in (("command", "command"), ("args", "arguments")):
        if theirs.get(key) != ours[key]:
            why = f"cannot be set, because the operator starts the {name} with its own {what}. {_INSTEAD_OF_COMMAND[name]}"
            yield Problem(f"{field}.{key}", f"{quote(theirs.get(key))} {why}")


def _holds(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(item.get(key) == value for key, value in wanted.items())
