"""What is wrong with a spec, in the words of the resource: field path, value, what is allowed."""

from collections.abc import Mapping

from pydantic_core import ErrorDetails

from alise_operator.errors import Problem


def problem(detail: ErrorDetails, patterns: Mapping[str, str]) -> Problem:
    """pydantic's error in our words; `patterns` says what a value that does not match is not."""
    path = "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    value, limits = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            text = "is required"
        case "extra_forbidden":
            text = "is not a field of this version; remove it or upgrade the CRD and the operator"
        case "literal_error":
            text = f"{_short(value)} is not allowed; use one of {limits['expected'].replace(' or ', ', ')}"
        case "greater_than_equal":
            text = f"{_short(value)} is below the smallest allowed value {limits['ge']}"
        case "less_than_equal":
            text = f"{_short(value)} is above the largest allowed value {limits['le']}"
        case "string_pattern_mismatch":
            text = f"{_short(value)} {patterns.get(limits['pattern'], 'does not match ' + limits['pattern'])}"
        case "string_too_short":
            text = "must not be empty"
        case "string_too_long" | "too_long":
            text = f"is longer than {limits['max_length']}"
        case _:
            message = detail["msg"].removeprefix("Input should be ")
            text = f"{_short(value)} is not allowed; it must be {message}"
    return Problem(path, text)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
