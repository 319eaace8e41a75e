"""Builds the ServiceAccount of the pods, without token and rights, because engines never call the API server.

Pure; `children()` in __init__.py calls it.
"""

from alise_operator.children.meta import Manifest, Owner, metadata


def service_account(owner: Owner) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(owner), "automountServiceAccountToken": False}
