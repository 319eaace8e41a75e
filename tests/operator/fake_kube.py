"""An API server in memory: keeps what is applied, hands out versions, refuses what a test wants it to refuse.

`world.py` and many tests of `tests/operator` use it.
"""

import copy
from asyncio import Queue
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import MANAGER, Manifest
from alise_operator.cluster import Cluster, Images
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import PAGE, Resource
from alise_operator.reconcile import ENGINES
from tests.operator.builders import CURRENT
from tests.operator.managed_fields import after_write

Place = tuple[str, str, str]

CHILDREN = frozenset(resource.plural for resources in OWNED_KINDS.values() for resource in resources)
# Kinds whose spec has generations.
COUNTED = CHILDREN & {
    "deployments",
    "ingresses",
    "httproutes",
    "networkpolicies",
    "poddisruptionbudgets",
    "scaledobjects",
    "inferencepools",
}
# What an apply does not change by itself.
OF_THE_SERVER = frozenset({"uid", "generation", "managedFields"})
START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeKube:
    def __init__(self, cluster: Cluster = CURRENT) -> None:
        self.cluster = cluster
        self.objects: dict[Place, Manifest] = {}
        # What was written, in order: (verb, plural, name).
        self.writes: list[tuple[str, str, str]] = []
        self.status_patches: list[Manifest] = []
        # plural -> the server's words, for objects that it does not take.
        self.refused: dict[str, str] = {}
        # plurals that the operator may not read.
        self.forbidden: set[str] = set()
        # plural -> the answer at which the server itself fails.
        self.failing: dict[str, int] = {}
        # Called after each write of a child, as a watch would see it.
        self.on_apply: Callable[[Manifest], None] = lambda _: None
        # What a watch gives, and the lists and pages that were asked for: (plural, field selector).
        self.changes: Queue[Manifest] = Queue()
        self.lists: list[tuple[str, str]] = []
        self.pages_read = 0
        self.away = False
        # How many requests came while it was away.
        self.refusals = 0
        # Whether it says who owns which field, as every API server since 1.18 does.
        self.records_owners = True
        self._version = 0

    def put(self, resource: Resource, manifest: Manifest, *, writer: str = "kubectl-edit") -> Manifest:
        """As another writer would write it."""
        return self._write(resource, manifest, writer, "Update")

    def _write(self, resource: Resource, manifest: Manifest, manager: str, operation: str) -> Manifest:
        self._version += 1
        stored = copy.deepcopy(manifest)
        meta = stored["metadata"]
        meta.setdefault("namespace", "default")
        meta.setdefault("uid", f"uid-{self._version}")
        meta["resourceVersion"] = str(self._version)
        place = (resource.plural, meta["namespace"], meta["name"])
        before = self.objects.get(place, {})
        known = before.get("metadata", {}).get("managedFields")
        if resource.plural in COUNTED and meta.get("generation", 0) == (
            known_generation := before.get("metadata", {}).get("generation", 0)
        ):
            meta["generation"] = known_generation + (before.get("spec") != stored.get("spec") or not before)
        if self.records_owners and resource.plural in CHILDREN and meta.get("managedFields", known) == known:
            # Each write is a second after the one before it.
            time = (START + timedelta(seconds=self._version)).strftime("%Y-%m-%dT%H:%M:%SZ")
            meta["managedFields"] = after_write(before, stored, manager, operation, time)
        self.objects[place] = stored
        return stored

    def put_engine(self, raw: Any, *, generation: int = 1, name: str = "tiny") -> None:
        before = self.objects.get((ENGINES.plural, "default", name), {})
        meta = {"name": name, "uid": f"uid-{name}", "generation": generation}
        self.put(ENGINES, {"metadata": meta, "spec": raw, "status": before.get("status", {})})

    def names(self, plural: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == plural)

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        self._check(resource)
        try:
            return copy.deepcopy(self.objects[(resource.plural, namespace, name)])
        except KeyError:
            raise Gone(f"{resource.plural} {namespace}/{name} not found", status=404) from None

    async def list(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> Sequence[Manifest]:
        self._check(resource)
        self.lists.append((resource.plural, fields))
        wanted = dict(one.split("=") for one in labels.split(",") if one)
        reason = dict(one.split("=") for one in fields.split(",") if one).get("reason")
        found = []
        for (plural, where, _), stored in self.objects.items():
            has = stored["metadata"].get("labels", {})
            fits = wanted.items() <= has.items() and reason in (None, stored.get("reason"))
            if plural == resource.plural and namespace in ("", where) and fits:
                found.append(copy.deepcopy({"metadata": stored["metadata"]} if slim else stored))
        return found

    async def pages(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> AsyncIterator[Sequence[Manifest]]:
        found = await self.list(resource, namespace, labels=labels, fields=fields, slim=slim)
        for start in range(0, len(found), PAGE):
            self.pages_read += 1
            yield found[start : start + PAGE]

    async def version(self, resource: Resource, namespace: str, *, labels: str = "") -> str:
        self._check()
        return str(self._version)

    async def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
        self._check()
        while True:
            yield await self.changes.get()

    async def apply(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        self._check()
        if resource.plural in self.refused:
            raise ApplyError(self.refused[resource.plural])
        if resource.plural in self.failing:
            raise ClusterError("failed calling webhook", status=self.failing[resource.plural])
        name = manifest["metadata"]["name"]
        before = self.objects.get((resource.plural, manifest["metadata"]["namespace"], name), {})
        if dry_run:
            # An object that exists keeps its version; one that would be created has none.
            known = {key: before["metadata"][key] for key in ("uid", "resourceVersion")} if before else {}
            return manifest | {"metadata": manifest["metadata"] | known}
        self.writes.append(("apply", resource.plural, name))
        meta = {key: value for key, value in before.get("metadata", {}).items() if key in OF_THE_SERVER} | manifest["metadata"]
        stored = self._write(resource, manifest | {"metadata": meta, "status": before.get("status", {})}, MANAGER, "Apply")
        self.on_apply(stored)
        return stored

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self._check()
        self.writes.append(("delete", resource.plural, name))
        if self.objects.get((resource.plural, namespace, name), {}).get("metadata", {}).get("uid") == uid:
            del self.objects[(resource.plural, namespace, name)]

    async def patch_status(self, resource: Resource, namespace: str, name: str, status: Manifest) -> Manifest:
        self._check()
        self.status_patches.append(copy.deepcopy(status))
        before = await FakeKube.get(self, resource, namespace, name)
        merged = before.get("status", {}) | status
        written = {"status": {key: value for key, value in merged.items() if value is not None}}
        return copy.deepcopy(self._write(resource, before | written, MANAGER, "Update"))

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Manifest, *, dry_run: bool = False) -> Manifest:
        self._check()
        if resource.plural in self.refused:
            raise ApplyError(self.refused[resource.plural])
        self.writes.append(("patch", resource.plural, name))
        before = await self.get(resource, namespace, name)
        meta = before["metadata"]
        if "annotations" in changes.get("metadata", {}):
            annotations = meta.get("annotations", {}) | changes["metadata"]["annotations"]
            meta["annotations"] = {key: value for key, value in annotations.items() if value is not None}
        meta |= {key: value for key, value in changes.get("metadata", {}).items() if key == "managedFields"}
        return self._write(resource, before | {"spec": before.get("spec", {}) | changes.get("spec", {})}, MANAGER, "Update")

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int, version: str) -> None:
        self._check()
        before = await self.get(resource, namespace, name)
        if before["metadata"]["resourceVersion"] != version:
            raise ClusterError("the object has been modified", status=409)
        self.writes.append(("scale", resource.plural, name))
        generation = before["metadata"]["generation"] + 1
        self.put(
            resource,
            before | {"metadata": before["metadata"] | {"generation": generation}, "spec": before["spec"] | {"replicas": replicas}},
        )

    async def create(self, resource: Resource, manifest: Manifest) -> None:
        self._check()
        meta = manifest["metadata"]
        if (resource.plural, meta["namespace"], meta["name"]) in self.objects:
            raise ClusterError("the object exists already", status=409)
        self.put(resource, manifest)

    async def replace(self, resource: Resource, manifest: Manifest) -> None:
        self._check()
        meta = manifest["metadata"]
        if (await self.get(resource, meta["namespace"], meta["name"]))["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise ClusterError("the object has been modified", status=409)
        self.put(resource, manifest)

    async def discover(self, images: Images) -> Cluster:
        self._check()
        return self.cluster

    def _check(self, resource: Resource | None = None) -> None:
        if resource is not None and resource.plural in self.forbidden:
            raise ApplyError(f"{resource.plural} is forbidden")
        if self.away:
            self.refusals += 1
            raise ClusterError("the API server cannot be reached")
