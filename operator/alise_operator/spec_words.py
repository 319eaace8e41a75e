"""Patterns of the texts in a spec, and messages for values that are not allowed: path of the field, value, what is allowed.

Pure: spec_types.py and the models use the patterns, crd.py turns them into CEL rules, and spec.py words pydantic's errors with `problem()`.
"""

from typing import Final

from pydantic_core import ErrorDetails

from alise_contract.quantities import PATTERN as QUANTITY
from alise_operator.errors import Problem
from alise_operator.sentences import quote

KUBERNETES_NAME: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# The name of an entry of a Secret. The engine ignores entries that begin with a dot, as the kubelet's own files do.
TENANT_NAME: Final = r"^[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"
# Clients send the name in a header: no control characters, no comma (which joins repeated headers), no space at either end.
CLASS_NAME: Final = r"^[^\x00-\x20,\x7f-\xa0]([^\x00-\x1f,\x7f-\x9f]*[^\x00-\x20,\x7f-\xa0])?$"
# One word that cannot be read as a flag. Without \s, which has another meaning in the API server (ASCII) than here (Unicode).
WORD: Final = r"^[^-\x00-\x20\x7f][^\x00-\x20\x7f]*$"
# The same for a name of at most 256 characters, with a message of its own.
SERVED_NAME: Final = r"^[^-\x00-\x20\x7f][^\x00-\x20\x7f]{0,255}$"
# A model name that needs no quotes in URLs, logs and labels.
ADAPTER_NAME: Final = r"^[a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?$"
HOST: Final = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
PATH: Final = r"^/[^\x00-\x20\x7f]+$"
# A dollar could be a variable that Kubernetes inserts.
COLLECTOR: Final = (
    r"^https?://([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\[[:.0-9a-f]+\]):[0-9]{1,5}(/[-._~/a-zA-Z0-9]*)?$"
)
# The message for a value that does not match, without the value.
PATTERNS_IN_WORDS: Final = {
    QUANTITY: "is not a quantity such as 500m, 2 or 4Gi",
    CLASS_NAME: "cannot be sent in a header; remove control characters, commas, and spaces at the beginning and end",
    WORD: "is not a single word; remove spaces, and a dash at the beginning",
    SERVED_NAME: (
        "is not a single word; a name has no spaces and does not begin with a dash, and further names go into spec.model.aliases"
    ),
    ADAPTER_NAME: (
        "is not the name of an adapter; names consist of letters, digits, dashes, underscores and dots, and begin and end with a letter or "
        "digit"
    ),
    KUBERNETES_NAME: (
        "is not a Kubernetes name; names consist of lower-case letters, digits, dashes and dots, and begin and end with a letter or digit"
    ),
    TENANT_NAME: (
        "is not the name of an entry in a Secret; names consist of letters, digits, dashes, underscores and dots, without a dot at the "
        "beginning"
    ),
    HOST: "is not a host name; names consist of lower-case letters, digits, dashes and dots, and may begin with *.",
    VARIABLE: (
        "is not the name of a variable; names consist of letters, digits, underscores, dashes and dots, and begin with a letter or "
        "underscore"
    ),
    COLLECTOR: (
        "is not the address of a collector; an address begins with http:// or https:// and has a host in lower-case letters and a "
        "port, for example http://collector.observability:4317"
    ),
    PATH: "is not the path of a folder; a path begins with / and has no spaces",
}


def problem(detail: ErrorDetails) -> Problem:
    """Returns an error of pydantic as a problem."""
    path = "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    value, limits = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            text = "is required"
        case "extra_forbidden":
            text = "is not a field of this version; remove it or upgrade the CRD and the operator"
        case "literal_error":
            text = f"{quote(value)} is not allowed; use one of {limits['expected'].replace(' or ', ', ')}"
        case "greater_than_equal":
            text = f"{quote(value)} is below the smallest allowed value {limits['ge']}"
        case "less_than_equal":
            text = f"{quote(value)} is above the largest allowed value {limits['le']}"
        case "string_pattern_mismatch":
            text = f"{quote(value)} {PATTERNS_IN_WORDS.get(limits['pattern'], 'does not match ' + limits['pattern'])}"
        case "string_too_short":
            text = "must not be empty"
        case "string_too_long":
            text = f"is longer than {limits['max_length']} characters"
        case "too_long":
            text = f"has more than {limits['max_length']} items"
        case _:
            message = detail["msg"].removeprefix("Input should be ")
            text = f"{quote(value)} is not allowed; it must be {message}"
    return Problem(path, text)
