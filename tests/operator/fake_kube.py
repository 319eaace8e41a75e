"""An API server in memory: keeps what is applied, hands out versions, refuses what a test wants it to refuse.

`world.py` and many tests of `tests/operator` use it.
"""

import copy
from asyncio import Queue
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from alise_operator.children.meta import Manifest
from alise_operator.cluster import Cluster, Images
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import PAGE, Resource
from alise_operator.reconcile import ENGINES
from tests.operator.builders import CURRENT

Place = tuple[str, str, str]


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
        self._version = 0

    def put(self, resource: Resource, manifest: Manifest) -> Manifest:
        """As another writer would write it."""
        self._version += 1
        stored = copy.deepcopy(manifest)
        meta = stored["metadata"]
        meta.setdefault("namespace", "default")
        meta.setdefault("uid", f"uid-{self._version}")
        meta["resourceVersion"] = str(self._version)
        self.objects[(resource.plural, meta["namespace"], meta["name"])] = stored
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
        stored = self.put(resource, manifest | {"status": before.get("status", {})})
        self.on_apply(stored)
        return stored

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self._check()
        self.writes.append(("delete", resource.plural, name))
        if self.objects.get((resource.plural, namespace, name), {}).get("metadata", {}).get("uid") == uid:
            del self.objects[(resource.plural, namespace, name)]

    async def patch_status(self, resource: Resource, namespace: str, name: str, status: Manifest) -> None:
        self._check()
        self.status_patches.append(copy.deepcopy(status))
        kept = {key: value for key, value in status.items() if value is not None}
        self.objects[(resource.plural, namespace, name)]["status"] = kept

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Manifest, *, dry_run: bool = False) -> Manifest:
        self._check()
        if resource.plural in self.refused:
            raise ApplyError(self.refused[resource.plural])
        self.writes.append(("patch", resource.plural, name))
        before = await self.get(resource, namespace, name)
        if "metadata" in changes:
            annotations = before["metadata"].get("annotations", {}) | changes["metadata"]["annotations"]
            before["metadata"]["annotations"] = {key: value for key, value in annotations.items() if value is not None}
        return self.put(resource, before | {"spec": before.get("spec", {}) | changes.get("spec", {})})

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
