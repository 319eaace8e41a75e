"""HTML of what the plugin fills into the operator's page: requests by rank, and the account of one; pure.

An id is chosen by a client, and a pod may answer anything: every value is escaped, in texts and in attributes, and an id in a link is
also URL-encoded. `ui.py` calls it.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

from alise_contract import page

from .requests_text import Answer, found, load_text, unknown_text

MOST_ROWS: Final = 100
_TONES: Final = {"running": "good", "waiting": "busy", "admitted": "busy", "restoring": "busy", "offloaded": "warn", "preempted": "warn"}
_PHASES: Final = {
    "offloaded": "Preempted. Its KV cache is in host memory, so it continues where it stopped.",
    "preempted": "Preempted. Its KV cache is not in host memory, so it is computed again.",
    "restoring": "Its KV cache is being copied back to the device.",
    "admitted": "The engine has not reported it yet.",
}
_RULES: Final = {
    "none": "It runs with the next step.",
    "share": "Its tenant uses its share of the slots.",
    "late": "It can no longer be in time, so requests that can be go first.",
    "overdue": "Overdue requests go first, oldest first.",
    "length": "Requests with less work left go first.",
    "arrival": "Requests of the same level that arrived earlier go first.",
    "slots": "It is among the first, but all slots are taken.",
    "kv_memory": "A slot is free, but there is no KV memory for it.",
}
_HEADINGS: Final = (
    ("#", "number"), ("Request", ""), ("Pod", ""), ("Phase", ""), ("Class", ""), ("Level", "number"), ("Done of predicted", ""),
    ("Waited", "number"), ("Preempted", "number"), ("Age", "number"), ("Turn in", "number"), ("Rule", ""),
)  # fmt: skip


def requests_html(answers: Mapping[str, Answer], unknown: Mapping[str, str]) -> str:
    """The requests of all pods, by pod and rank. `answers` and `unknown`, why a pod did not answer, are by the pod's name."""
    return "".join(_requests(answers, unknown))


def account_html(request_id: str, answers: Mapping[str, Answer]) -> str:
    """Why the requests with this id wait or have waited. `answers` is by the pod's name; `requests_html` names the pods that are silent."""
    return "".join(_account(request_id, answers))


def problem_html(text: str) -> str:
    """A sentence that says why something is missing."""
    return f'<p class="missing">{escape(text)}</p>'


def page_html(title: str, text: str) -> str:
    """A page of its own, if that of the operator cannot be had."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/page.css"></head>'
        f'<body><main><section class="card empty"><h2>{escape(title)}</h2><p>{escape(text)}</p></section></main></body></html>'
    )


def _requests(answers: Mapping[str, Answer], unknown: Mapping[str, str]) -> Iterator[str]:
    for line in load_text(answers):
        yield f'<p class="load">{escape(line)}</p>'
    for line in unknown_text(unknown):
        yield problem_html(line)
    rows = [(pod, place, request) for pod, answer in answers.items() for place, request in enumerate(answer["requests"], start=1)]
    if not rows:
        yield '<p class="none">No pod that answered has a request.</p>'
        return
    headings = "".join(f'<th class="{kind}">{name}</th>' for name, kind in _HEADINGS)
    yield f'<div class="scroll"><table><thead><tr>{headings}</tr></thead><tbody>'
    yield from (_row(pod, place, request) for pod, place, request in rows[:MOST_ROWS])
    yield "</tbody></table></div>"
    more = sum(sum(answer["by_phase"].values()) for answer in answers.values()) - min(len(rows), MOST_ROWS)
    if more > 0:
        yield f'<p class="none">{more} more are not shown.</p>'


def _row(pod: str, place: int, request: Answer) -> str:
    standing, phase, name = request["standing"], str(request["phase"]), str(request["request_id"])
    runs = phase == "running"
    preempted = f"{request['preemptions']}× {request['preempted_seconds']:.1f} s" if request["preemptions"] else "–"
    link = escape(f"?{urlencode({page.REQUEST_PARAMETER: name})}#requests")
    done, predicted = request["generated_tokens"], request["predicted_tokens"]
    cells = (
        _number(place),
        f'<td class="id" title="{escape(name)}"><a href="{link}">{escape(name)}</a></td>',
        f'<td class="id" title="{escape(pod)}">{escape(pod)}</td>',
        f'<td><span class="badge {_TONES.get(phase, "idle")}" title="{escape(_PHASES.get(phase, ""))}">{escape(phase)}</span></td>',
        f"<td>{escape(str(request['class']))}</td>",
        _number(standing["job_level"]),
        f'<td class="share"><progress max="{max(1.0, float(predicted)):.0f}" value="{float(done):.0f}"></progress> '
        f"<small>{escape(str(done))} of {escape(str(predicted))}</small></td>",
        _number(f"{request['waited_seconds']:.1f} s"),
        _number(preempted),
        _number(f"{request['age_seconds']:.1f} s"),
        _number("–" if runs else f"{standing['turn_seconds']:.1f} s"),
        "<td>–</td>" if runs else f'<td title="{escape(_RULES.get(str(standing["rule"]), ""))}">{escape(str(standing["rule"]))}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: Any) -> str:
    return f'<td class="number">{escape(str(value))}</td>'


def _account(request_id: str, answers: Mapping[str, Answer]) -> Iterator[str]:
    for pod, answer in answers.items():
        for match in answer["matches"]:
            tenant = f", tenant {match['tenant']}" if "tenant" in match else ""
            heading = f"{match['request_id']} in {pod}: model {match['model']}, class {match['class']}{tenant}"
            sentences = "".join(f"<li>{escape(str(sentence))}</li>" for sentence in match["sentences"])
            yield f'<div class="account"><h3>{escape(heading)}</h3><ul>{sentences}</ul></div>'
    if not found(answers):
        text = f"No pod that answered knows a request {request_id}. A pod knows the requests that it has and the last 1,000 that ended."
        yield problem_html(text)
