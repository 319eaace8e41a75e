"""Reconciles one AliseEngine in numbered steps: read, parse, build, apply, observe, scale, report.

app.py calls `Reconciler.reconcile()` from its workers; one AliseEngine is reconciled by one worker at a time (workqueue.py). It touches
the cluster through kube.py, which apply.py, leaving.py, discovery.py, observe.py, observe_route.py, autoscaler.py and events.py use as
well, and asks pods through poller.py. A reconcile compares the AliseEngine with the cluster as they are now, whatever caused it. Only for
an AliseEngine at rest it relies on watches, and reads nothing again that they cover (reads.py); `all_keys()` and `verify()`, which app.py
calls at intervals, find the changes that no watch reported.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, PLURAL
from alise_operator import events, metrics, scaling_condition
from alise_operator.allowed import RESTRICTED, Allowed
from alise_operator.apply import Applied, all_children, apply_children, apply_replicas, digest, version_of
from alise_operator.autoscaler import Autoscaler
from alise_operator.children import Owner, children
from alise_operator.children.meta import Manifest
from alise_operator.cluster import Cluster, Images, KedaScaler
from alise_operator.demand import Demands
from alise_operator.discovery import Discovery
from alise_operator.errors import ApplyError, ClusterError, Gone, InternalError, OperatorError, SpecError
from alise_operator.held_requests import HeldRequests
from alise_operator.kube import Kube, Resource
from alise_operator.leaving import mark_leaving
from alise_operator.load import Loads, load_of
from alise_operator.observation import Observation
from alise_operator.observe import observe
from alise_operator.observe_route import RouteObserver
from alise_operator.poller import Poller
from alise_operator.reads import READ_KINDS, Edition, Memory, Need, Reads, after_write, is_at_rest
from alise_operator.replicas import is_suspended, wanted_replicas
from alise_operator.restores import Meanwhile, Restores
from alise_operator.route_ready import Way, gateway_limits
from alise_operator.rules import check
from alise_operator.spec import Spec, parse
from alise_operator.status import changes, fold

log = logging.getLogger(__name__)

ENGINES: Final = Resource(f"{API_GROUP}/{API_VERSION}", PLURAL)
# Children are compared with what was applied, or else applied, at least this often, whatever the watches report.
REAPPLY_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Key:
    """A resource's namespace and name."""

    namespace: str
    name: str

    @property
    def place(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Reconciler:
    """Brings one AliseEngine at a time to the state in its spec.

    It remembers what it last applied, and what it last read of those at rest (reads.py). It reads everything else.
    """

    def __init__(
        self,
        kube: Kube,
        poller: Poller,
        images: Images,
        *,
        keda: KedaScaler | None = None,
        demands: Demands | None = None,
        held: HeldRequests | None = None,
        loads: Loads | None = None,
        allowed: Allowed = RESTRICTED,
        route_annotations: frozenset[str] = frozenset(),
        namespace: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._poller = poller
        # Empty for all namespaces.
        self._namespace = namespace
        self._discovery = Discovery(
            kube, images, allowed=allowed, route_annotations=route_annotations, keda=keda, namespace=namespace, monotonic=monotonic
        )
        self._routes = RouteObserver(kube, namespace=namespace, monotonic=monotonic)
        self._autoscaler = Autoscaler(kube, demands=demands, held=held, now=now, monotonic=monotonic)
        self._loads = loads if loads is not None else Loads()
        self._now = now
        self._monotonic = monotonic
        self._applied: dict[str, Applied] = {}
        # uid of an owner whose children are being applied -> each child seen meanwhile.
        self._applying: dict[str, dict[tuple[str, str], Meanwhile]] = {}
        self._restores = Restores()
        self._memory = Memory()
        # uids of those that may have children: all that existed when this process first listed them, and those that it has applied.
        self._may_have_children: set[str] | None = None
        # Those that metrics report.
        self._reported: set[Key] = set()

    async def all_keys(self) -> dict[Key, Edition]:
        """Returns every AliseEngine of the cluster, and forgets those that are gone. Raises ClusterError, ApplyError (not allowed)."""
        keys: dict[Key, Edition] = {}
        async for page in self._kube.pages(ENGINES, self._namespace, slim=True):
            for meta in (one["metadata"] for one in page):
                key = Key(meta["namespace"], meta["name"])
                keys[key] = Edition.of(meta)
                self._memory.listed(key.place, str(meta["resourceVersion"]))
        uids = {edition.uid for edition in keys.values()}
        self._memory.keep(frozenset(key.place for key in keys))
        # Those that are created after this have only the children that this process gives them, because it holds the lease.
        self._may_have_children = uids if self._may_have_children is None else self._may_have_children & uids
        self._applied = {uid: applied for uid, applied in self._applied.items() if uid in uids}
        self._restores.keep(uids)
        for key in self._reported - keys.keys():
            self._forget(key)
        return keys

    def changed(self, key: Key) -> None:
        """Notes that a pod or a child of the AliseEngine has changed, so that the next reconcile reads all of it."""
        self._memory.drop(key.place)

    def engine_changed(self, key: Key, version: str) -> bool:
        """Notes a version of the AliseEngine that a watch reported, and returns whether it needs a reconcile.

        It needs none if it was read, or is what was read with a status that the operator itself has written.
        """
        return self._memory.saw(key.place, version)

    def missed(self) -> None:
        """Notes that changes may not have been reported."""
        self._memory.drop_all()

    async def verify(self) -> None:
        """Every few minutes, compares all children with what was applied and read, because not every change is watched, or reported.

        Raises ClusterError, ApplyError (not allowed); children are then applied again after REAPPLY_SECONDS.
        """
        began = self._monotonic()
        if not self._memory.is_due(began):
            return
        found = await all_children(self._kube, self._namespace)
        for uid, applied in list(self._applied.items()):
            if applied.at_seconds < began:
                if {child: version for child, (version, _) in found.get(uid, {}).items()} == applied.versions:
                    applied.at_seconds = began
                else:
                    del self._applied[uid]
        self._memory.verified({uid: {child: version for child, (_, version) in own.items()} for uid, own in found.items()}, began)

    async def wake(self, seen: Callable[[Key], None]) -> None:
        """Calls `seen` with each AliseEngine without pods for which the endpoint picker holds a request. Never returns."""
        await self._autoscaler.wake(lambda namespace, name: seen(Key(namespace, name)))

    async def reconcile(self, key: Key) -> OperatorError | None:
        """Reconciles the AliseEngine once, and returns the error that was reported on it, if any.

        Raises ClusterError if the API server could not be asked, and re-raises an unexpected exception (a bug) after reporting it.
        """
        began = self._monotonic()
        reads, error = self._memory.recall(key.place, began), None
        self._memory.begin(key.place, again=False)
        try:
            if reads is not None and reads.owner.uid in self._applied and await self._is_unchanged(reads):
                # Only the pods' own reports can be others than before.
                # Known again once the status is written: if this ends on the way there, what was read may be older than it.
                known, reads = reads, None
                seen = replace(known.seen, pods=await self._poller.poll(known.seen.pods))
                reads = known.reported(await self._conclude(key, known.resource, known.owner, known.spec, None, seen, known.way))
            else:
                reads = None
                self._memory.begin(key.place)
                reads, error = await self._from_the_cluster(key, began)
        finally:
            self._memory.end(key.place, reads)
        return error

    async def _from_the_cluster(self, key: Key, began: float) -> tuple[Reads | None, OperatorError | None]:
        """Does all of a reconcile. Returns what was read, if the AliseEngine is at rest, and the error."""
        # 1. Read the AliseEngine as it is now.
        try:
            resource = await self._kube.get(ENGINES, key.namespace, key.name)
        except Gone:
            self._forget(key)
            return None, None
        meta = resource["metadata"]
        if "deletionTimestamp" in meta:
            # The garbage collector removes the children by their owner reference.
            return None, None
        owner = Owner(key.name, key.namespace, meta["uid"])
        spec: Spec | None = None
        wanted: Spec | None = None
        way: Way | None = None
        error: OperatorError | None = None
        bug: Exception | None = None
        created: Manifest | None = None
        try:
            # 2. Is the spec valid?
            spec = parse(resource.get("spec"))
            wanted = scaling_condition.at_first(spec, resource.get("status", {}))
            check(spec, key.name)
            # 3. Which children should exist? 4. Apply them. An invalid spec leaves the children of the last valid one unchanged.
            cluster = await self._discovery.cluster()
            way = await self._routes.look(spec, owner, cluster, Way() if self._is_new(owner) else None)
            await self._mark_leaving(wanted, owner)
            created = await self._apply(wanted, owner, cluster, way)
        except (SpecError, ApplyError) as caught:
            error = caught
            self._discovery.note(caught)
        except ClusterError as caught:
            if not caught.is_failure:
                raise
            error = caught
        except Exception as caught:
            bug = caught
            error = InternalError(
                f"the operator failed on this spec ({type(caught).__name__}: {caught}); please report this bug with the operator's log"
            )
        if error is not None:
            # Only the number of pods is applied, whatever else is wrong.
            await self._apply_replicas(resource, wanted, owner)
        # 5. What does the cluster report?
        tls_secret = spec.route.tls_secret if spec is not None else None
        has_picker = spec is not None and spec.routing.endpoint_picker is not None
        picker_at = self._now() if has_picker else None
        seen = await observe(self._kube, self._poller, owner, tls_secret=tls_secret, picker_at=picker_at, created=created)
        known = await self._conclude(key, resource, owner, spec, error, seen, way)
        if bug is not None:
            raise bug
        is_done = error is None and created is None and owner.uid in self._applied and is_at_rest(seen) and not has_picker
        if spec is None or way is None or not is_done:
            return None, error
        return Reads.of(resource, spec, owner, cluster, way, seen, began).reported(known), None

    async def _conclude(
        self,
        key: Key,
        resource: Manifest,
        owner: Owner,
        spec: Spec | None,
        error: OperatorError | None,
        seen: Observation,
        way: Way | None,
    ) -> Manifest | None:
        """Scales the AliseEngine and reports on it. Returns it as it is then; None if it is gone or another writer was faster."""
        # 6. Does the predicted work need another number of pods? If so, the change of the spec brings the next reconcile.
        previous = resource.get("status", {})
        # A child that the cluster refuses says nothing against the spec, and the number of pods is applied all the same.
        valid = spec if error is None or isinstance(error, (ApplyError, ClusterError)) else None
        before = scaling_condition.of(previous)
        first = scaling_condition.at_first(valid, previous).replicas if valid is not None else 0
        scaling = await self._autoscaler.follow(resource, valid, owner, seen, before, by_keda=self._by_keda(before), at_first=first)
        seen = replace(seen, troubles=(*seen.troubles, *self._autoscaler.troubles(owner, seen)))
        # 7. Report it.
        status = fold(
            spec=spec,
            owner=owner,
            generation=resource["metadata"]["generation"],
            error=error,
            observation=seen,
            way=way,
            previous=previous,
            now=self._now(),
            suspended=is_suspended(resource.get("spec")),
            autoscaling=scaling,
        )
        self._reported.add(key)
        self._loads.set(key.namespace, key.name, load_of(seen.pods))
        metrics.RESOURCES.report(key.namespace, key.name, status, seen.workload.pods() if seen.workload is not None else {})
        return await self._report(key, owner, resource, status)

    async def _is_unchanged(self, reads: Reads) -> bool:
        """Returns whether what no watch reports is as it was read: APIs, classes, Gateways, the hosts of others, the certificate."""
        spec, owner, secret = reads.spec, reads.owner, reads.spec.route.tls_secret
        try:
            is_same = await self._discovery.cluster() == reads.cluster
            is_same = is_same and await self._routes.look(spec, owner, reads.cluster, reads.way) == reads.way
            return is_same and (secret is None or await self._routes.has_secret(owner.namespace, secret))
        except ClusterError as error:
            # A failure of the server is reported by a reconcile that reads everything.
            if not error.is_failure:
                raise
            return False

    def child_changed(self, kind: str, child: Mapping[str, Any], *, deleted: bool) -> Need:
        """Notes a child that a watch reported, and returns what its AliseEngine needs."""
        meta = child["metadata"]
        seen, key, need = None if deleted else version_of(child), (kind, meta["name"]), Need.READ
        for reference in meta.get("ownerReferences", ()):
            owner = Owner(reference["name"], meta["namespace"], reference.get("uid", ""))
            if owner.uid in self._applying:
                # The result of the apply is not known yet; the two are compared at its end.
                self._applying[owner.uid][key] = Meanwhile(child, seen)
            # The first of several changed children ends that all of them count as applied, so that the restores know them, too.
            applied = self._applied.get(owner.uid) or self._restores.applied(owner.uid)
            known = applied.versions.get(key) if applied is not None else None
            if owner.uid in self._applied and known is not None and known == seen:
                of_status = self._memory.saw_child((owner.namespace, owner.name), kind, child) if kind in READ_KINDS else Need.NOTHING
                need = min(need, of_status)
            # While children are applied, the watch also shows the operator's own writes.
            if applied is not None and known is not None and known != seen and owner.uid not in self._applying:
                log.info("a child was changed by another writer and is applied again", extra={"child": f"{kind}/{meta['name']}"})
                self._applied.pop(owner.uid, None)
                self._restores.note(owner, kind, child, applied, deleted=deleted)
        return need

    async def _mark_leaving(self, spec: Spec, owner: Owner) -> None:
        """Marks the pods that should leave, if the number of pods falls."""
        before = self._applied.get(owner.uid)
        may_fall = before is None or before.scale is None or before.scale.replicas > spec.replicas
        if may_fall and spec.replicas and not spec.suspend and not self._is_new(owner):
            await mark_leaving(self._kube, self._poller, owner, spec.replicas)

    def _is_new(self, owner: Owner) -> bool:
        """Returns whether the AliseEngine certainly has no children yet."""
        return self._may_have_children is not None and owner.uid not in self._may_have_children

    async def _apply(self, spec: Spec, owner: Owner, cluster: Cluster, way: Way) -> Manifest | None:
        """Applies the children, unless they are as they should be. Returns the Deployment if it is the first of the AliseEngine."""
        manifests = children(spec, owner, cluster, gateway_limits(spec, owner, way))
        wanted, now = digest(manifests), self._monotonic()
        before = self._applied.get(owner.uid)
        changed = before is None or before.digest != wanted
        if before is not None and not changed and now - before.at_seconds < REAPPLY_SECONDS:
            return None
        # Forget it first, so that an apply that fails half way is repeated in full.
        self._applied.pop(owner.uid, None)
        is_new, answers = self._is_new(owner), dict[str, Manifest]()
        if self._may_have_children is not None:
            self._may_have_children.add(owner.uid)

        def answered(manifest: Manifest, answer: Manifest) -> None:
            self._restores.compare(owner, wanted, manifest, answer)
            if is_new and manifest["kind"] == "Deployment":
                answers[manifest["metadata"]["name"]] = answer

        meanwhile = self._applying[owner.uid] = {}
        try:
            last = before if changed else None
            applied = await apply_children(
                self._kube, owner, manifests, changed=changed, at_seconds=now, is_new=is_new, before=last, answered=answered
            )
        finally:
            del self._applying[owner.uid]
        news = self._restores.news(owner, applied, suspended=spec.suspend, now_seconds=now)
        # A child that was meanwhile deleted or changed is applied again; the watch has requested that reconcile.
        if self._restores.note_meanwhile(owner, meanwhile, applied):
            self._applied[owner.uid] = applied
        await events.warn_of(self._kube, [(one.reason, one.message) for one in news], owner, now=self._now())
        if changed:
            log.info("children applied", extra={"engine": f"{owner.namespace}/{owner.name}", "children": len(manifests)})
        return answers.get(owner.name)

    async def _apply_replicas(self, resource: Manifest, spec: Spec | None, owner: Owner) -> None:
        """Scales the Deployment of the last valid spec. A failure is only logged: the error that led here is reported and retried."""
        raw = resource.get("spec")
        is_default = spec is None and scaling_condition.begins_unread(raw, resource.get("status", {}))
        replicas = None if is_default else wanted_replicas(raw if spec is None else spec.model_dump(by_alias=True))
        # The Deployment now differs from what was applied, so all of it is applied once the spec is valid.
        self._applied.pop(owner.uid, None)
        if replicas is None:
            return
        try:
            if await apply_replicas(self._kube, owner, replicas):
                log.info("Deployment scaled", extra={"engine": f"{owner.namespace}/{owner.name}", "replicas": replicas})
        except (ApplyError, ClusterError) as failure:
            log.warning("replicas could not be applied", extra={"engine": f"{owner.namespace}/{owner.name}", "error": str(failure)})

    def _by_keda(self, before: Mapping[str, Any] | None) -> bool:
        """Returns whether KEDA scales; by the present condition while the cluster could not be discovered."""
        return scaling_condition.is_by_keda(before) if self._discovery.known is None else self._discovery.known.keda is not None

    async def _report(self, key: Key, owner: Owner, resource: Manifest, status: dict[str, Any]) -> Manifest | None:
        previous = resource.get("status", {})
        if previous == status:
            return resource
        # A merge patch keeps absent fields, so removed fields are written as null.
        removed = {name: None for name in previous if name not in status}
        try:
            answer = await self._kube.patch_status(ENGINES, owner.namespace, owner.name, status | removed)
        except Gone:
            return None
        metrics.STATUS_WRITES.inc()
        await events.announce(self._kube, changes(previous, status), owner, now=self._now())
        return after_write(resource, status, answer)

    def _forget(self, key: Key) -> None:
        self._reported.discard(key)
        metrics.RESOURCES.forget(key.namespace, key.name)
        self._autoscaler.forget(key.namespace, key.name)
        self._loads.forget(key.namespace, key.name)
