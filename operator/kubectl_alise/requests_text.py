"""The texts of `kubectl alise top` and `kubectl alise explain`, from the JSON of the schedulers; pure.

`cli.py` prints them, `pods.py` tries each pod's answer with them, and `page_parts.py` makes HTML of the same answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .tables import table

Answer = Mapping[str, Any]

_COLUMNS: Final = ("POD", "#", "REQUEST", "PHASE", "CLASS", "LEVEL", "PREDICTED", "DONE", "WAITED", "PREEMPTED", "AGE", "TURN", "RULE")


def top_text(answers: Mapping[str, Answer], unknown: Mapping[str, str]) -> list[str]:
    """The requests of all pods, by pod and rank. `answers` and `unknown`, why a pod did not answer, are by the pod's name."""
    lines = load_text(answers) + unknown_text(unknown)
    rows = [_row(pod, place, request) for pod, answer in answers.items() for place, request in enumerate(answer["requests"], start=1)]
    if rows:
        lines += ["", *table(_COLUMNS, rows)]
    left_out = sum(sum(answer["by_phase"].values()) - len(answer["requests"]) for answer in answers.values())
    return lines + ([f"{left_out} more are not shown; see --limit."] if left_out > 0 else [])


def load_text(answers: Mapping[str, Answer]) -> list[str]:
    """What runs, waits and is preempted in each pod."""
    lines = []
    for pod, answer in answers.items():
        phases = answer["by_phase"]
        preempted = phases["offloaded"] + phases["preempted"] + phases["restoring"]
        waiting = phases["waiting"] + phases["admitted"]
        lines.append(
            f"{pod}: {phases['running']} run on {answer['slots']} slots, {waiting} wait, {preempted} are preempted; "
            f"about {answer['backlog_seconds']:.0f} s of work."
        )
        if not answer["connected"]:
            lines.append(f"{pod}: its scheduler is not connected to the engine, so requests run in the order of arrival.")
    return lines


def unknown_text(unknown: Mapping[str, str]) -> list[str]:
    """Which pods did not answer, and why."""
    return [f"{pod}: {why}." for pod, why in unknown.items()]


def explain_text(request_id: str, answers: Mapping[str, Answer], unknown: Mapping[str, str]) -> list[str]:
    """Why the requests with this id wait or have waited, or where else to look. Arguments as those of `top_text`."""
    lines: list[str] = []
    for pod, answer in answers.items():
        for match in answer["matches"]:
            tenant = f", tenant {match['tenant']}" if "tenant" in match else ""
            lines.append(
                f"Request {match['request_id']} in {pod} (job {match['job']}, model {match['model']}, class {match['class']}{tenant})"
            )
            lines += [f"  {sentence}" for sentence in match["sentences"]]
    lines += [f"{pod} was not asked: {why}." for pod, why in unknown.items()]
    if found(answers):
        return lines
    return [
        f"No pod knows a request {request_id}. A pod knows the requests that it has and the last 1,000 that ended.",
        "The id is that of the header x-request-id, or the `id` in the answer. Older ones are in the scheduler's log, as `request ended`.",
        *lines,
    ]


def found(answers: Mapping[str, Answer]) -> bool:
    """Whether any pod knows the request."""
    return any(answer["matches"] for answer in answers.values())


def _row(pod: str, place: int, request: Answer) -> Sequence[str]:
    standing = request["standing"]
    return (
        pod,
        str(place),
        request["request_id"],
        request["phase"],
        request["class"],
        str(standing["job_level"]),
        str(request["predicted_tokens"]),
        str(request["generated_tokens"]),
        f"{request['waited_seconds']:.1f}s",
        f"{request['preemptions']}x {request['preempted_seconds']:.1f}s" if request["preemptions"] else "",
        f"{request['age_seconds']:.1f}s",
        "" if request["phase"] == "running" else f"{standing['turn_seconds']:.1f}s",
        "" if request["phase"] == "running" else standing["rule"],
    )
