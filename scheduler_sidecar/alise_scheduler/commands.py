"""The commands for people: `alise-scheduler top` and `alise-scheduler explain ID`, run in the scheduler's container by `kubectl exec`.

They ask the scheduler process over `requests.sock` (`rpc/requests.py`) and print what it answers, as text or as JSON. `__main__.py` calls
them. Nothing of the scheduler is loaded here, so that a command takes little memory beside it.
"""

import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

_TIMEOUT_SECONDS: Final = 10.0
MAX_ID_CHARS: Final = 256
_HEADINGS: Final = ("#", "REQUEST", "PHASE", "CLASS", "LEVEL", "PREDICTED", "DONE", "WAITED", "PREEMPTED", "AGE", "TURN", "RULE")


class AskError(Exception):
    """The scheduler process did not answer. The message is for people."""


def top(socket_path: str, limit: int, as_json: bool) -> str:
    """The active requests of this pod, best rank first. Raises AskError."""
    answer = _get(socket_path, f"/requests?limit={limit}")
    return json.dumps(answer) if as_json else _as_text(answer)


def explain(socket_path: str, request_id: str, as_json: bool) -> tuple[str, bool]:
    """Why this request waits or has waited, and whether this pod knows it. Raises AskError."""
    if not 0 < len(request_id) <= MAX_ID_CHARS:
        raise AskError(f"the id of a request has 1 to {MAX_ID_CHARS} characters, and this one has {len(request_id)}")
    answer = _get(socket_path, f"/requests/{quote(request_id, safe='')}")
    matches = answer["matches"]
    if as_json:
        return json.dumps(answer), bool(matches)
    if not matches:
        return (
            f"This pod knows no request {request_id}. It knows the requests that it has and the last 1,000 that ended since the scheduler "
            "started. Another pod may have served it; older ones are in the log, as `request ended`.",
            False,
        )
    return "\n\n".join(_match_as_text(match) for match in matches), True


def _match_as_text(match: dict[str, Any]) -> str:
    tenant = f", tenant {match['tenant']}" if "tenant" in match else ""
    heading = f"Request {match['request_id']} (job {match['job']}, model {match['model']}, class {match['class']}{tenant})"
    return "\n".join([heading, *(f"  {sentence}" for sentence in match["sentences"])])


def _as_text(answer: dict[str, Any]) -> str:
    requests, phases = answer["requests"], answer["by_phase"]
    rows = [_row(place, request) for place, request in enumerate(requests, start=1)]
    total, running = sum(phases.values()), phases["running"]
    lines = [f"{answer['model']}: {total} requests, {running} of them run on {answer['slots']} slots. Policy {answer['policy']}."]
    if not answer["connected"]:
        lines.append("The scheduler is not connected to the engine: requests run in the order of arrival.")
    lines += table([_HEADINGS, *rows]) if rows else []
    if total > len(rows):
        lines.append(f"{total - len(rows)} more are not shown; see --limit.")
    return "\n".join(lines)


def _row(place: int, request: dict[str, Any]) -> tuple[str, ...]:
    standing = request["standing"]
    preempted = f"{request['preemptions']}x {request['preempted_seconds']:.1f}s" if request["preemptions"] else "-"
    turn, rule = ("-", "-") if request["phase"] == "running" else (f"{standing['turn_seconds']:.1f}s", standing["rule"])
    return (
        str(place),
        request["request_id"],
        request["phase"],
        request["class"],
        str(standing["job_level"]),
        str(request["predicted_tokens"]),
        str(request["generated_tokens"]),
        f"{request['waited_seconds']:.1f}s",
        preempted,
        f"{request['age_seconds']:.1f}s",
        turn,
        rule,
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns of equal width, three spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def _get(socket_path: str, path: str) -> dict[str, Any]:
    connection = _UnixConnection(socket_path)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise AskError(
            f"the scheduler process does not answer on {socket_path}: {error or type(error).__name__}. It may be starting; see its log"
        ) from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise AskError(f"the scheduler process answered {response.status}: {body[:200].decode('utf-8', 'replace')}")
    answer: dict[str, Any] = json.loads(body)
    return answer
