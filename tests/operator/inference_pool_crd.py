"""The CRD of the InferencePool, with the fields that the operator sets, and closed against others like that of keda_crd.py.

`test_several_operators.py` installs it.
"""

from typing import Any

from tests.operator.keda_crd import object_schema


def inference_pool_crd() -> dict[str, Any]:
    name = {"type": "string", "minLength": 1, "maxLength": 253}
    port = object_schema(("number",), number={"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})
    picker = object_schema(
        ("name",), name=name, port=port, failureMode={"type": "string", "enum": ["FailOpen", "FailClose"], "default": "FailClose"}
    )
    labels = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
    spec = object_schema(
        ("selector", "targetPorts", "endpointPickerRef"),
        selector=object_schema(("matchLabels",), matchLabels=labels),
        targetPorts={"type": "array", "minItems": 1, "maxItems": 8, "items": port},
        endpointPickerRef=picker,
    )
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": object_schema(("spec",), spec=spec)}}
    names = {"kind": "InferencePool", "listKind": "InferencePoolList", "plural": "inferencepools", "singular": "inferencepool"}
    # An API server accepts a CRD in a group of Kubernetes only with this annotation.
    annotations = {"api-approved.kubernetes.io": "unapproved, for tests alone"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "inferencepools.inference.networking.k8s.io", "annotations": annotations},
        "spec": {"group": "inference.networking.k8s.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }
