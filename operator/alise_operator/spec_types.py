"""The types that several fields of the AliseEngine share: names, quantities, references to Secrets, and the base of every model.

spec.py and spec_engine.py build the resource from these types. Each type checks a value here and describes the same check to the API
server, because crd.py generates the CRD's schema from it. Pure.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from alise_contract.quantities import MAX_LENGTH, PATTERN
from alise_operator.spec_words import CLASS_NAME, KUBERNETES_NAME, SERVED_NAME

# The name of an AliseEngine also names its Service and is a label value.
NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_MAX_LENGTH: Final = 63
MAX_REPLICAS: Final = 10_000


def _number_to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(pattern=PATTERN, max_length=MAX_LENGTH),
    BeforeValidator(_number_to_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": PATTERN,
            "maxLength": MAX_LENGTH,
            "minimum": 0,
        }
    ),
]
# An object that Kubernetes defines; the API server checks it when the operator applies the child that contains it.
Opaque = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
SecretName = Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)]
# One word on the engine's command line that cannot be read as a flag.
ServedName = Annotated[str, Field(min_length=1, max_length=256, pattern=SERVED_NAME)]
ClassName = Annotated[str, Field(min_length=1, max_length=63, pattern=CLASS_NAME)]


def rule(expression: str, message: str) -> dict[str, str]:
    """Returns a CEL validation rule; API servers check it since 1.25, older ones prune it."""
    return {"rule": expression, "message": message}


def rules(*given: dict[str, str]) -> dict[str, Any]:
    """Returns the part of a model's schema that holds its CEL rules."""
    return {"x-kubernetes-validations": list(given)}


class SpecModel(BaseModel):
    # Strict: a type that the CRD's schema refuses is refused here as well.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class SecretKeyRef(SpecModel):
    name: SecretName
    """Name of the Secret, in the namespace of the AliseEngine."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key in the Secret."""


class DsnSecretRef(SpecModel):
    name: SecretName
    """Name of the Secret, in the namespace of the AliseEngine."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "dsn"
    """Key in the Secret."""


class HistoryKeySecretRef(SpecModel):
    name: SecretName
    """Name of the Secret, in the namespace of the AliseEngine."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "key"
    """Key in the Secret."""


SecretKey = SecretKeyRef | DsnSecretRef | HistoryKeySecretRef
