"""The pods' ServiceAccount: engines never talk to the API server, so it carries no token and no rights."""

from alise_operator.children.meta import Manifest, Owner, metadata


def service_account(owner: Owner) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(owner), "automountServiceAccountToken": False}
