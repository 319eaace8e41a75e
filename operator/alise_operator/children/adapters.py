"""Builds the ConfigMap with the list of LoRA adapters, which the pods mount and follow.

A changed list is no change of the pod template, so nothing restarts. Pure; `children()` in __init__.py calls it.
"""

from typing import Final

from alise_contract import adapters as contract
from alise_operator.adapter_rules import listed, lora
from alise_operator.children.meta import Manifest, Owner, metadata
from alise_operator.spec import Spec

# What the ConfigMap of a resource is called: the resource's name with this behind it.
SUFFIX: Final = "-adapters"


def adapters_name(owner: Owner) -> str:
    return owner.name + SUFFIX


def adapters(spec: Spec, owner: Owner) -> Manifest | None:
    """Returns the ConfigMap; None if LoRA is off."""
    if lora(spec.model) is None:
        return None
    meta = metadata(owner) | {"name": adapters_name(owner)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {contract.FILE: contract.dump(listed(spec.model))}}
