"""What holds of a spec on a real API server: the CRD's schema and the operator agree, and children are taken or the field is named.

`test_fuzzed_specs.py` calls it.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kubernetes.client import ApiException, CustomObjectsApi
from kubernetes.config import new_client_from_config

from alise_contract.names import API_GROUP, API_VERSION, KIND, PLURAL
from alise_operator.apply import try_children
from alise_operator.children import Owner, children
from alise_operator.cluster import Cluster, Images
from alise_operator.errors import ApplyError, InvalidSpec, SpecError
from alise_operator.kube import HttpKube
from alise_operator.rules import check
from alise_operator.spec import Spec, parse
from tests.operator.fuzz.properties import Broken, Property

_OWNER: Final = Owner("fuzzed", "default", "00000000-0000-4000-8000-000000000000")
# An API server takes minutes for fields that are nested more deeply.
_MAX_DEPTH: Final = 20
_NAMED: Final = re.compile(r"\bspec\.(podTemplate|route|networkPolicy|model\.cache|engine|scheduling|auth)\b")
# Kubernetes 1.20 takes an empty text for null.
_EMPTY_IS_NULL: Final = 'must be of type string: "null"'


@contextmanager
def agreement(kubeconfig: Path) -> Iterator[Mapping[str, Property]]:
    """Properties that ask this API server, without writing anything."""
    resources = CustomObjectsApi(new_client_from_config(str(kubeconfig)))
    with asyncio.Runner() as runner:
        kube = HttpKube(kubeconfig)
        runner.run(kube.__aenter__())
        try:
            cluster = runner.run(kube.discover(Images()))

            def schema_and_operator_agree(raw: Any) -> None:
                if isinstance(raw, dict) and _depth(raw) <= _MAX_DEPTH:
                    _agree(resources, without_nulls(raw))

            def refused_children_name_their_fields(raw: Any) -> None:
                if _depth(raw) <= _MAX_DEPTH:
                    runner.run(_children_are_taken(kube, cluster, raw))

            yield {one.__name__: one for one in (schema_and_operator_agree, refused_children_name_their_fields)}
        finally:
            runner.run(kube.__aexit__())


def _agree(resources: CustomObjectsApi, raw: dict[str, Any]) -> None:
    body = {"apiVersion": f"{API_GROUP}/{API_VERSION}", "kind": KIND, "metadata": {"name": _OWNER.name}, "spec": raw}
    try:
        taken = resources.create_namespaced_custom_object(API_GROUP, API_VERSION, _OWNER.namespace, PLURAL, body, dry_run="All")
    except ApiException as refusal:
        if refusal.status not in (400, 422):
            raise
        said = json.loads(refusal.body)["message"]
        if (spec := _parsed(raw)) is not None and _passes(spec) and not said.endswith(_EMPTY_IS_NULL):
            raise Broken(f"the API server refuses what the operator takes: {said}") from None
        return
    try:
        parse(taken["spec"])
    except InvalidSpec as refusal:
        raise Broken(f"the API server takes what the operator refuses: {refusal}") from None


async def _children_are_taken(kube: HttpKube, cluster: Cluster, raw: Any) -> None:
    if (spec := _parsed(raw)) is None or not _passes(spec):
        return
    try:
        await try_children(kube, children(spec, _OWNER, cluster))
    except SpecError:
        return
    except ApplyError as refusal:
        if not _NAMED.search(str(refusal)):
            raise Broken(f"a refusal that names no field of the resource: {refusal}") from None


def _parsed(raw: Any) -> Spec | None:
    try:
        return parse(raw)
    except InvalidSpec:
        return None


def _passes(spec: Spec) -> bool:
    try:
        check(spec, _OWNER.name)
    except InvalidSpec:
        return False
    return True


def without_nulls(value: Any) -> Any:
    """The value without nulls in objects: a field that is absent, to the operator, and to the server only where there is a default."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return [without_nulls(item) for item in value if item is not None] if isinstance(value, list) else value


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        value, level = waiting.pop()
        deepest = max(deepest, level)
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        waiting += [(child, level + 1) for child in inner]
    return deepest
