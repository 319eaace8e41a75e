"""kopf's handlers: each event of a child becomes a key in the queue. The only module besides __main__.py that uses kopf.

__main__.py registers and configures them. AliseEngines and pods are watched by watches.py instead. Only `on.event` handlers are used: they
leave no finalizer and no annotation, and kopf reports every object again after a restart.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import kopf

from alise_contract.names import ENGINE_LABEL
from alise_operator.app import App
from alise_operator.children.meta import MANAGED_BY, MANAGER
from alise_operator.kube import PAGE, in_cluster, in_cluster_server
from alise_operator.reconcile import Key

# The kinds of children that are watched: a child that another writer edits or deletes is applied again.
WATCHED: Final[tuple[tuple[str, str | None, str], ...]] = (
    ("", "v1", "services"),
    ("", "v1", "serviceaccounts"),
    ("apps", "v1", "deployments"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("gateway.networking.k8s.io", "v1", "httproutes"),
    # In the version that the API server prefers.
    ("policy", None, "poddisruptionbudgets"),
)


class Backoffs:
    """Endless pauses, in seconds, between attempts to reach the API server: after a finite list kopf gives up a watch for good."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 2, 3, 5)
        while True:
            yield 10


def register(registry: kopf.OperatorRegistry, app: App) -> None:
    def login(**kwargs: Any) -> Any:
        if not in_cluster():
            return kopf.login_with_kubeconfig(**kwargs)
        found = kopf.login_with_service_account(**kwargs)
        return found and replace(found, server=in_cluster_server())

    async def child_seen(event: Any, namespace: str, labels: Any, **_: Any) -> None:
        child = event["object"]
        need = app.reconciler.child_changed(child["kind"], child, deleted=event["type"] == "DELETED")
        if labels.get(ENGINE_LABEL):
            app.needs(Key(namespace, labels[ENGINE_LABEL]), need)

    kopf.on.login(registry=registry)(login)
    for group, version, plural in WATCHED:
        kopf.on.event(group, version, plural, id=f"child_seen_{plural}", labels={MANAGED_BY: MANAGER}, registry=registry)(child_seen)


def configure(settings: kopf.OperatorSettings, *, is_namespaced: bool = False) -> None:
    """Sets kopf's watches: they are reopened, read only our own children, in pages, and keep objects briefly; no kopf events, no peering.

    An operator for one namespace does not watch CRDs and namespaces, because it may not.
    """
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 15
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 15
    settings.networking.error_backoffs = Backoffs()
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = 0.2
    settings.scanning.disabled = is_namespaced
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.process.ultimate_exiting_timeout = 20
    for group, version, plural in WATCHED:
        settings.watching.label_selectors[group, version, plural] = f"{MANAGED_BY}={MANAGER}"
