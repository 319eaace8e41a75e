"""The Gateway API's kinds, where the tests need them: ours in a cluster of ours, the user's own in theirs."""

from pathlib import Path
from typing import Final

import yaml

from tests.cluster.access import Access
from tests.cluster.errors import ClusterError

CRDS: Final = Path(__file__).parents[1] / "crds" / "gateway-api.yaml"


def ensure(access: Access, *, own: bool) -> None:
    """Install the kinds in a cluster of ours. In the user's `own` nothing is written: theirs are used as they are, if they have any."""
    if own:
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
