"""Checks objects by Kubernetes' own schemas, which kubernetes-validate brings.

The library reads a version's definitions, megabytes of JSON, again for each object. Importing this module makes it keep them, for the
whole process, which takes an eighth of the time. `manifests.py` and tests of `tests/operator` call it.
"""

from functools import lru_cache
from typing import Any, Final

import kubernetes_validate
from kubernetes_validate import utils

# The newest version whose schemas are there.
NEWEST: Final = "1.37"
# Each version has one large file and one small file for each kind.
_KEPT_FILES: Final = 64

utils.schema_contents = lru_cache(maxsize=_KEPT_FILES)(utils.schema_contents)


def validate(body: dict[str, Any], version: str = NEWEST) -> str:
    """Returns the version of the schemas. Raises kubernetes_validate.ValidationError for an object that they do not allow, unknown fields
    included, and kubernetes_validate.SchemaNotFoundError for a kind without a schema."""
    return str(kubernetes_validate.validate(body, version, strict=True))
