"""Patterns of the resource's texts, and what is wrong with a spec, in the words of the resource: field path, value, what is allowed."""

from typing import Final

from pydantic_core import ErrorDetails

from alise_operator.errors import Problem
from alise_operator.quantities import PATTERN as QUANTITY
from alise_operator.sentences import quote

KUBERNETES_NAME: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
# An entry of a Secret; the engine skips those that begin with a dot, as the kubelet's own files do.
TENANT_NAME: Final = r"^[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"
# Clients send the name in a header: no control characters, no comma (which joins headers that are sent twice), no blank at either end.
CLASS_NAME: Final = r"^[^\x00-\x20,\x7f-\xa0]([^\x00-\x1f,\x7f-\x9f]*[^\x00-\x20,\x7f-\xa0])?$"
# One word that does not read as a flag. No \s: to the API server it is ASCII's blanks but one, to the operator all of Unicode's.
WORD: Final = r"^[^-\x00-\x20\x7f][^\x00-\x20\x7f]*$"
# The same of a name, which has other words: of at most 256 characters.
SERVED_NAME: Final = r"^[^-\x00-\x20\x7f][^\x00-\x20\x7f]{0,255}$"
HOST: Final = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
PATH: Final = r"^/[^\x00-\x20\x7f]+$"
# What a value that does not match is not, and what is allowed.
PATTERNS_IN_WORDS: Final = {
    QUANTITY: "is not a quantity such as 500m, 2 or 4Gi",
    CLASS_NAME: "cannot be sent in a header; leave out control characters, commas, and blanks at the beginning and end",
    WORD: "is not one plain word; leave out blanks, and a dash at the beginning",
    SERVED_NAME: (
        "is not one plain word; a name has no blanks and does not begin with a dash, and further names go into spec.model.aliases"
    ),
    KUBERNETES_NAME: "is no Kubernetes name; names have lower-case letters, digits, dashes and dots, and a letter or digit at both ends",
    TENANT_NAME: "is not an entry's name in a Secret; it has letters, digits, dashes, underscores and dots, and no dot at the beginning",
    HOST: "is not a host name; names have lower-case letters, digits, dashes and dots, and may begin with *.",
    VARIABLE: "is not a variable's name; names have letters, digits, underscores, dashes and dots, and begin with a letter or underscore",
    PATH: "is not the path of a folder; it begins with / and has no blanks",
}


def problem(detail: ErrorDetails) -> Problem:
    """pydantic's error in our words."""
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
        case "string_too_long" | "too_long":
            text = f"is longer than {limits['max_length']}"
        case _:
            message = detail["msg"].removeprefix("Input should be ")
            text = f"{quote(value)} is not allowed; it must be {message}"
    return Problem(path, text)
