"""The CRD of KEDA's ScaledObject, with the fields that the operator sets, and closed against others, as a strict client would see it.

KEDA itself is not installed in the tests; a gRPC client plays its part in test_scaler.py.
`test_autoscaling_on_control_plane.py` and `test_several_operators.py` install this CRD.
"""

from typing import Any


def object_schema(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def scaled_object_crd() -> dict[str, Any]:
    text, number = {"type": "string"}, {"type": "integer", "format": "int32"}
    window = object_schema(stabilizationWindowSeconds={"type": "integer", "format": "int32", "minimum": 0, "maximum": 3600})
    advanced = object_schema(horizontalPodAutoscalerConfig=object_schema(behavior=object_schema(scaleDown=window)))
    trigger = object_schema(
        ("metadata", "type"),
        type=text,
        metadata={"type": "object", "additionalProperties": text},
        authenticationRef=object_schema(("name",), kind=text, name=text),
    )
    spec = object_schema(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=object_schema(("name",), apiVersion=text, kind=text, name=text),
        minReplicaCount=number,
        maxReplicaCount=number,
        pollingInterval=number,
        cooldownPeriod=number,
        advanced=advanced,
        triggers={"type": "array", "items": trigger},
    )
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": object_schema(("spec",), spec=spec)}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {
            "group": "keda.sh",
            "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "listKind": "ScaledObjectList", "plural": "scaledobjects", "singular": "scaledobject"},
            "versions": [version],
        },
    }
