"""The Gateway API's kinds and the test gateway's classes: ours in a cluster of ours, the user's own kinds in theirs.

`tests/tools/run_cluster.py`, `tests/operator` and `tests/e2e` call it.
"""

from pathlib import Path
from typing import Final

import yaml

from tests.cluster.access import Access
from tests.cluster.errors import ClusterError
from tests.cluster.gateway.answers import CONTROLLER
from tests.cluster.gateway.resources import INGRESS_CLASS

CRDS: Final = Path(__file__).parents[1] / "crds" / "gateway-api.yaml"


def ensure(access: Access, *, belongs_to_user: bool) -> None:
    """Install the kinds in a cluster of ours. A cluster that belongs to the user stays as it is, with the kinds that it has."""
    if belongs_to_user:
        return
    for document in yaml.safe_load_all(CRDS.read_text(encoding="utf-8")):
        access.apply(document)
        access.kubectl("wait", "--for=condition=Established", f"crd/{document['metadata']['name']}", "--timeout=30s")


def require(access: Access) -> None:
    """For what routes by HTTPRoute. Raises ClusterError when the cluster lacks one of the kinds."""
    for document in yaml.safe_load_all(CRDS.read_text(encoding="utf-8")):
        name = document["metadata"]["name"]
        if not access.kubectl("get", "crd", name, "--ignore-not-found", "-o", "name").strip():
            raise ClusterError(f"your cluster lacks the Gateway API ({name}): install it, or leave out what routes by HTTPRoute")


def ensure_classes(access: Access) -> None:
    """Make the IngressClass that the test gateway serves, and the GatewayClass where the cluster knows the kind."""
    meta = {"name": INGRESS_CLASS}
    access.apply({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": meta, "spec": {"controller": CONTROLLER}})
    if access.kubectl("get", "crd", "gatewayclasses.gateway.networking.k8s.io", "--ignore-not-found", "-o", "name").strip():
        access.learn_kinds()
        gateway_class = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": meta}
        access.apply(gateway_class | {"spec": {"controllerName": CONTROLLER}})
