"""The volume that keeps downloaded weights."""

from alise_operator.build.meta import Manifest, Owner, metadata
from alise_operator.spec import Spec


def model_cache(spec: Spec, owner: Owner) -> Manifest | None:
    cache = spec.model.cache
    if cache is None:
        return None
    claim: Manifest = {"accessModes": [cache.access_mode], "resources": {"requests": {"storage": cache.size}}}
    if cache.storage_class is not None:
        claim["storageClassName"] = cache.storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(owner), "spec": claim}
