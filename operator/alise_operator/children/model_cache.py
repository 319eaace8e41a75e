"""Builds the PersistentVolumeClaim that keeps downloaded weights, if the spec has a size for it.

Pure; `children()` in __init__.py calls it.
"""

from alise_operator.children.meta import Manifest, Owner, metadata
from alise_operator.spec import Spec


def model_cache(spec: Spec, owner: Owner, template: Manifest) -> Manifest | None:
    """Returns the claim; None if the pods of the (patched) template use another volume, because an unused claim costs money."""
    cache = spec.model.cache
    if cache is None or cache.size is None or not _mounted(template, owner.name):
        return None
    claim: Manifest = {"accessModes": [cache.access_mode], "resources": {"requests": {"storage": cache.size}}}
    if cache.storage_class is not None:
        claim["storageClassName"] = cache.storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(owner), "spec": claim}


def _mounted(template: Manifest, claim: str) -> bool:
    sources = [volume.get("persistentVolumeClaim") for volume in template["spec"]["volumes"]]
    return any(isinstance(source, dict) and source.get("claimName") == claim for source in sources)
