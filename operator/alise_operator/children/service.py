"""Builds the Service in front of the OpenAI API of the engine pods. Pure; `children()` in __init__.py calls it."""

from typing import Final

from alise_operator.children.meta import Manifest, Owner, metadata, selector

SERVICE_PORT: Final = 80


def service(owner: Owner) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(owner),
            # The protocol is explicit because server-side apply on old servers refuses a port without it.
            "ports": [{"name": "http", "protocol": "TCP", "port": SERVICE_PORT, "targetPort": "http"}],
        },
    }
