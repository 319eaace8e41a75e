"""Turns what a pod answered over HTTP into a report; pure. Nothing in the answer is trusted: a pod runs what its namespace gave it.

Bounds are checked before anything is parsed, every failure is a ValueError with a text of bounded length, and every text in a report is
short and printable, because it may be quoted in a condition.
"""

import re
from dataclasses import replace
from typing import Final

from alise_contract.names import ENGINE_PORT, STATUS_PATH
from alise_operator.observation import PodReport, view_report
from alise_operator.sentences import words

# A report has about a kilobyte.
MAX_BODY_BYTES: Final = 64 * 1024
# A report has three levels. Parsers recurse, so deeper ones are refused unparsed.
MAX_DEPTH: Final = 32
# Reasons by which a report counts requests; the contract has five.
MAX_REASONS: Final = 32
MAX_NAME_CHARS: Final = 64
_USE_OURS: Final = "use an alise engine image in spec.engine.image"
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def read_answer(status: int, encoding: str, body: bytes) -> PodReport:
    """Raises ValueError that says why the answer is no report."""
    if status != 200:
        # A redirect is such an answer too: the operator reaches addresses that the pod's owner may not.
        raise ValueError(_refused(status))
    if encoding.strip().lower() not in ("", "identity"):
        raise ValueError(f"{STATUS_PATH} answered in an encoding that was not asked for; {_USE_OURS}")
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{STATUS_PATH} answered more than {MAX_BODY_BYTES // 1024} KiB; {_USE_OURS}")
    if depth(body) > MAX_DEPTH:
        raise ValueError(f"the pod's status cannot be read: it is nested more than {MAX_DEPTH} levels deep")
    try:
        report = view_report(body.decode(errors="replace"))
    except ValueError:
        raise
    except Exception as error:
        # Whatever else a parser stumbles over is the pod's fault, and must not end the reconcile.
        raise ValueError(f"the pod's status cannot be read: {type(error).__name__}") from error
    return bounded(report)


def _refused(status: int) -> str:
    if status in (401, 403):
        return (
            f"GET {STATUS_PATH} on port {ENGINE_PORT} was refused with {status}, so the operator cannot see the pod's scheduler and "
            "memory; requests are served. Let this path through without credentials: a middleware (--middleware in spec.engine.args) or a "
            "proxy in the pod refuses it"
        )
    if status >= 500:
        return f"{STATUS_PATH} answered {status}; see the engine's log"
    return f"{STATUS_PATH} answered {status}; {_USE_OURS}"


def depth(text: bytes) -> int:
    """How deep the brackets of a JSON text are nested, those in its strings left out. Needs no stack."""
    level = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", text)):
        level += 1 if bracket[0] in (b"[", b"{") else -1
        deepest = max(deepest, level)
    return deepest


def bounded(report: PodReport) -> PodReport:
    """The report with texts that are short and printable, and not more of them than a report has."""
    return replace(
        report,
        boot_id=_name(report.boot_id),
        failed_open_by_reason=tuple((_name(reason), count) for reason, count in report.failed_open_by_reason[:MAX_REASONS]),
    )


def _name(text: str) -> str:
    return words(text)[:MAX_NAME_CHARS]
