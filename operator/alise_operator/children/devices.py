"""Determines the compute resources of the engine's container: what the user sets, and the devices and memory that the operator adds.

Pure: pod.py calls `engine_resources()` for the container, and pod_needs.py calls `device_problems()` for the merged template.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from alise_contract.names import ENGINE_CONTAINER
from alise_contract.quantities import format_bytes, parse_quantity
from alise_operator.children.merge import merge
from alise_operator.children.meta import Manifest
from alise_operator.children.pod_lists import CONTAINER_LISTS
from alise_operator.children.pod_shape import FIELD, patch_problems
from alise_operator.errors import Problem
from alise_operator.memory_rules import default_memory_limit_bytes, requested_memory_bytes
from alise_operator.rules import is_extended, only_as_limit
from alise_operator.sentences import quote
from alise_operator.spec import Spec
from alise_operator.spec_engine import Resources

DEFAULT_DEVICE: Final = "nvidia.com/gpu"
_RESOURCES: Final = ("spec", "containers", "resources")
_MAX_ASKED: Final = 200
_MAX_NAME: Final = 63


def as_manifest(resources: Resources) -> Manifest:
    """Returns the `resources` of a container, without empty parts."""
    claims = [claim.model_dump(by_alias=True, exclude_none=True) for claim in resources.claims]
    parts = (("requests", dict(resources.requests)), ("limits", dict(resources.limits)), ("claims", claims))
    return {key: value for key, value in parts if value}


def engine_resources(spec: Spec) -> Manifest:
    """Returns the user's resources, the limits that Kubernetes requires beside requests, and devices and memory if the user sets none."""
    own = as_manifest(spec.engine.resources)
    wished = merge(own, _patch_of_resources(spec.pod_template), _RESOURCES)
    requests, limits = _quantities(wished, "requests"), _quantities(wished, "limits")
    added_requests: dict[str, str] = {}
    added_limits = {name: value for name, value in requests.items() if only_as_limit(name) and name not in limits}
    if spec.engine.device == "cuda" and not wished.get("claims") and not any(is_extended(name) for name in (*requests, *limits)):
        added_limits[DEFAULT_DEVICE] = str(spec.engine.tensor_parallel_size)
    if "memory" not in limits:
        if "memory" not in requests:
            added_requests["memory"] = format_bytes(requested_memory_bytes(spec))
        added_limits["memory"] = _memory_limit(requests.get("memory"), spec)
    added = {key: value for key, value in (("requests", added_requests), ("limits", added_limits)) if value}
    resources: Manifest = merge(own, added, _RESOURCES)
    return resources


def device_problems(template: Manifest, spec: Spec) -> Iterator[Problem]:
    """Yields a problem if there are fewer devices than tensorParallelSize, and for each claim that the pod does not have."""
    pod = template["spec"]
    known = {claim["name"] for claim in pod.get("resourceClaims") or ()}
    for key in CONTAINER_LISTS:
        for container in pod.get(key) or ():
            name, resources = container["name"], container.get("resources") or {}
            claims = resources.get("claims") or ()
            for claim in claims:
                if claim["name"] not in known:
                    own = spec.engine.resources if name == ENGINE_CONTAINER else spec.scheduling.resources
                    typed = own is not None and any(one.name == claim["name"] for one in own.claims)
                    where = "spec.engine" if name == ENGINE_CONTAINER else "spec.scheduling"
                    yield _unknown_claim(where if typed else f"{FIELD}.spec.{key}[{name}]", claim["name"])
            if name == ENGINE_CONTAINER and spec.engine.device == "cuda" and not claims:
                yield from _too_few(_quantities(resources, "limits"), spec, f"{FIELD}.spec.{key}[{name}]")


def _too_few(limits: Mapping[str, str], spec: Spec, patch: str) -> Iterator[Problem]:
    size = spec.engine.tensor_parallel_size
    devices = {name: value for name, value in limits.items() if is_extended(name)}
    try:
        count = sum(parse_quantity(value) for value in devices.values())
    except ValueError:
        # The API server refuses it with its own message.
        return
    if devices and count < size:
        asked = ", ".join(f"{name}: {value}" for name, value in devices.items())
        asked = asked if len(asked) <= _MAX_ASKED else f"{asked[: _MAX_ASKED - 1]}…"
        where = "spec.engine" if devices.keys() <= spec.engine.resources.limits.keys() else patch
        lower = f"lower spec.engine.tensorParallelSize to {count:f}" if count == int(count) > 0 else "use another device"
        text = f"{size} is more than the devices in {where}.resources.limits ({asked}); raise the limit to {size}, or {lower}"
        yield Problem("spec.engine.tensorParallelSize", text)


def _unknown_claim(where: str, claim: str) -> Problem:
    example = f"{{name: {claim if len(claim) <= _MAX_NAME else 'NAME'}, resourceClaimTemplateName: TEMPLATE}}"
    return Problem(
        f"{where}.resources.claims", f"the pod has no claim {quote(claim)}; add it to {FIELD}.spec.resourceClaims, for example {example}"
    )


def _memory_limit(request: str | None, spec: Spec) -> str:
    default = default_memory_limit_bytes(spec)
    try:
        return request if request is not None and parse_quantity(request) > default else format_bytes(default)
    except ValueError:
        return format_bytes(default)


def _quantities(resources: Mapping[str, Any], key: str) -> dict[str, str]:
    found = resources.get(key)
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _patch_of_resources(patch: Mapping[str, Any]) -> Manifest:
    """Returns the engine's resources in the patch; none if the patch cannot be merged, which is refused elsewhere."""
    if any(patch_problems(patch)):
        return {}
    pod = patch.get("spec") or {}
    containers = [item for key in CONTAINER_LISTS for item in pod.get(key) or () if item.get("name") == ENGINE_CONTAINER]
    return next((item["resources"] for item in containers if item.get("resources")), {})
