"""Turns a pod's answer over HTTP into a status report, and trusts nothing in it: a pod runs whatever its namespace put there.

Pure: poller.py calls `read_answer()`. Bounds are checked before anything is parsed, every failure is a ValueError with a message of bounded
length, and every text in a report is short and printable, because a condition may quote it.
"""

import re
from dataclasses import replace
from typing import Final

from alise_contract import adapters
from alise_contract.names import ENGINE_PORT, STATUS_PATH
from alise_operator.observation import AdapterReport, PodReport, view_report
from alise_operator.sentences import words

# A report is about one kilobyte long.
MAX_BODY_BYTES: Final = 64 * 1024
# A report has three levels. Parsers recurse, so deeper JSON is refused unparsed.
MAX_DEPTH: Final = 32
# Reasons by which a report counts requests. The contract has five.
MAX_REASONS: Final = 32
MAX_NAME_CHARS: Final = 64
# Each adapter, and the version that replaces it.
MAX_ADAPTER_ROWS: Final = 2 * adapters.MAX_ADAPTERS
_USE_OURS: Final = "use an alise engine image in spec.engine.image"
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def read_answer(status: int, encoding: str, body: bytes) -> PodReport:
    """Returns the report. Raises ValueError, which says why the answer is no report."""
    if status != 200:
        # This includes redirects: the operator can reach addresses that the pod's owner cannot.
        raise ValueError(_refused(status))
    if encoding.strip().lower() not in ("", "identity"):
        raise ValueError(f"{STATUS_PATH} answered in an encoding that was not requested; {_USE_OURS}")
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{STATUS_PATH} answered more than {MAX_BODY_BYTES // 1024} KiB; {_USE_OURS}")
    if depth(body) > MAX_DEPTH:
        raise ValueError(f"the pod's status cannot be read: it is nested more than {MAX_DEPTH} levels deep")
    try:
        report = view_report(body.decode(errors="replace"))
    except ValueError:
        raise
    except Exception as error:
        # Any other error of a parser is caused by the pod and must not abort the reconcile.
        raise ValueError(f"the pod's status cannot be read: {type(error).__name__}") from error
    return bounded(report)


def _refused(status: int) -> str:
    if status in (401, 403):
        return (
            f"GET {STATUS_PATH} on port {ENGINE_PORT} was refused with {status}, so the operator cannot see the pod's scheduler and "
            "memory; requests are still served. Allow this path without credentials: a middleware (--middleware in spec.engine.args) or a "
            "proxy in the pod refuses it"
        )
    if status >= 500:
        return f"{STATUS_PATH} answered {status}; see the engine's log"
    return f"{STATUS_PATH} answered {status}; {_USE_OURS}"


def depth(text: bytes) -> int:
    """Returns how deeply the brackets of a JSON text are nested, ignoring brackets in strings. Does not recurse."""
    level = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", text)):
        level += 1 if bracket[0] in (b"[", b"{") else -1
        deepest = max(deepest, level)
    return deepest


def bounded(report: PodReport) -> PodReport:
    """Returns the report with texts that are short and printable, and no more of them than a report has."""
    return replace(
        report,
        boot_id=_name(report.boot_id),
        failed_open_by_reason=tuple((_name(reason), count) for reason, count in report.failed_open_by_reason[:MAX_REASONS]),
        adapters=tuple(
            AdapterReport(_name(one.name), _name(one.source), _name(one.state), words(one.message)[: adapters.MAX_MESSAGE_CHARS])
            for one in report.adapters[:MAX_ADAPTER_ROWS]
        ),
    )


def _name(text: str) -> str:
    return words(text)[:MAX_NAME_CHARS]
