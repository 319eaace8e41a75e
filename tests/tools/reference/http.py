"""The page of what alise adds to vLLM's HTTP API, from the constants and tables of the middleware.

`__main__.py` writes it to docs/reference/http.md.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from alise_contract import names
from alise_engine.api.outcomes import ADMISSION_REFUSALS, OUTCOMES, Outcome, Refusal
from alise_engine.api.routes import DESCRIBED, METRICS_PATH, OPEN_PATHS
from tests.tools.reference.page import code, page, prose, table

# What each request header means, by the header or by all of its spellings.
REQUEST_HEADERS: Final[Mapping[tuple[str, ...], str]] = {
    ("authorization",): "An API key, as `Authorization: Bearer KEY`. Needed where the resource has `spec.auth`.",
    ("x-api-key",): "An API key, for clients that send it this way.",
    names.TENANT_HEADERS: "The tenant of the request, used only with `spec.admission.trustHeaders`. With an API key, a part of its tenant.",
    names.OBJECTIVE_HEADERS: "The class of the request, used only with `spec.admission.trustHeaders`.",
    names.SLO_TTFT_HEADERS: (
        "The time to first token that the client needs, in milliseconds. If the predicted wait is longer, the request is refused with 429."
    ),
    (names.REQUEST_ID_HEADER,): (
        f"An id of the client's choice: 1 to {names.MAX_REQUEST_ID_CHARS} printable ASCII characters without spaces. It is returned, "
        "logged, and finds the request in [explanations](../how-to/why-did-my-request-wait.md). Another value is dropped."
    ),
    ("traceparent",): (
        "W3C trace context of the client. With `spec.observability.traces`, its trace is [continued](../how-to/traces.md), and its sampled "
        "flag decides whether the request is traced."
    ),
    ("tracestate",): "W3C trace state, passed on to the spans of the trace if it has fewer than 512 characters.",
    (names.PRIORITY_HEADER,): "Removed: clients cannot choose the priority of a request. The same holds for `priority` in the body.",
}
RESPONSE_HEADERS: Final[Mapping[str, str]] = {
    names.REQUEST_ID_HEADER: "The id of the request: the client's own if it sent one, otherwise one of alise's own.",
    names.OUTCOME_RESPONSE_HEADER: "What admission decided, one of the [outcomes](#outcomes).",
    names.CLASS_RESPONSE_HEADER: f"The class of the request, `{names.DEFAULT_CLASS}` without one.",
    "retry-after": "With 429 and 503: the number of seconds after which a new attempt makes sense.",
    "connection": "`close` on routes that generate while the pod drains, after a body that was not read to its end, and with 401.",
    "www-authenticate": "`Bearer`, with 401.",
}


def render() -> str:
    """Returns the page: headers, outcomes with their status codes, and paths."""
    return page(
        "HTTP",
        "engine_image/alise_engine/api",
        prose(
            "Clients talk to vLLM's own OpenAI-compatible server, and alise changes neither requests nor answers. This page lists what it "
            "adds: headers, and refusals of requests that do not reach vLLM. [Admission](../concepts/admission.md) explains when that "
            "happens."
        ),
        ["## Request headers", "", *table(("header", "meaning"), map(_request_header, REQUEST_HEADERS.items()))],
        prose("Where two spellings are listed, the first one that the request has is used."),
        [
            "## Response headers",
            "",
            *prose(
                "Answers of [routes that generate](#routes-that-generate) have the first three headers, refusals included. Other answers "
                "have none of the three, and neither has a 401, whose outcome only the metric below counts."
            ),
            "",
            *table(("header", "meaning"), ((code(name), meaning) for name, meaning in RESPONSE_HEADERS.items())),
            "",
            *prose(
                f"The id has vLLM's own name for it, `{names.REQUEST_ID_HEADER}`, and not a name of alise's, because clients know it: "
                "OpenAI's Python client returns it as `answer._request_id`, proxies write it to their logs, and vLLM makes its own "
                "ids of one that the client or a gateway sent, such as `chatcmpl-ID` in the answer. vLLM returns it only with "
                "`--enable-request-id-headers`, and then on every route; here routes that generate always have it, other routes never, "
                "and that flag changes nothing. Two requests with the same id stay two requests: alise has a further id for each, which "
                "its logs call `job`, and which is returned where none was sent; the id in the answer is then another one, of vLLM's."
            ),
        ],
        [
            "## Outcomes",
            "",
            *prose(
                f"The outcome is the value of `{names.OUTCOME_RESPONSE_HEADER}` and of the label `outcome` of the metric "
                "`alise_engine_http_requests_total`. Where no status is listed, vLLM answers the request, and its status codes apply. On "
                "other routes, the metric counts only what is refused: bodies, and requests without an API key."
            ),
            "",
            *table(("outcome", "status", "error type", "WebSocket code", "meaning"), map(_outcome, OUTCOMES)),
            "",
            *prose("A refusal has a body as OpenAI's API defines it. The message says what to do:"),
            "",
            "```json",
            '{"error": {"message": "this replica is draining; try again", "type": "ServiceUnavailableError", "param": null, "code": 503}}',
            "```",
        ],
        ["## Routes that generate"],
        prose(
            "A route generates if a POST to it gives the engine work: the four whose requests are ranked, which are "
            f"{', '.join(map(code, sorted(DESCRIBED)))}, and all others that compute with the model, such as `/v1/embeddings`, "
            "`/pooling`, `/score` and `/v1/audio/transcriptions`. The routes that only tokenize, such as `/tokenize`, and those that "
            "administer the server, such as `/v1/load_lora_adapter`, do not generate, and neither does any GET, such as `/v1/models`. A "
            "POST route that alise does not know counts as one that generates, so that none gets around admission."
        ),
        [
            "## Paths",
            "",
            *prose("These paths exist beside vLLM's own, or differ from them in whether they need an API key."),
            "",
            *table(("path", "API key", "what it serves"), _paths()),
        ],
    )


def _request_header(item: tuple[tuple[str, ...], str]) -> tuple[str, str]:
    spellings, meaning = item
    return "<br>".join(map(code, spellings)), meaning


def _outcome(outcome: Outcome) -> tuple[str, ...]:
    match outcome:
        case Refusal():
            retry = " Carries `Retry-After`." if outcome in ADMISSION_REFUSALS.values() or _retries(outcome) else ""
            return code(outcome.name), str(outcome.status), code(outcome.error_type), str(outcome.close_code or ""), outcome.meaning + retry
        case _:
            return code(outcome.name), "", "", "", outcome.meaning


def _retries(refusal: Refusal) -> bool:
    return any(name == b"retry-after" for name, _ in refusal.headers)


_PATHS: Final[Mapping[str, str]] = {
    names.STATUS_PATH: "The status that the operator polls, as JSON: counters, no content of requests.",
    "/health": "vLLM's health check.",
    "/ping": "vLLM's health check under another name.",
}


def _paths() -> Iterator[tuple[str, str, str]]:
    for path in sorted(OPEN_PATHS):
        yield code(path), "never", _PATHS[path]
    yield code(METRICS_PATH), "with `spec.auth.guardMetrics`", "The [metrics](metrics.md) of the engine."
    yield "all others", "with `spec.auth`", "vLLM's API."
