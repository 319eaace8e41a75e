"""Which of vLLM 0.32's routes put work into the engine, and which may be reached without an API key; pure.

A POST that no list here knows counts as generating, so that a route that a later vLLM adds cannot be used to get around admission. A test
compares the lists with the routes of the running application. `middleware.py` asks it about each request.
"""

from enum import Enum
from typing import Final

from alise_contract.describe import Endpoint
from alise_contract.names import STATUS_PATH


class Route(Enum):
    # Work for the engine.
    GENERATES = "generates"
    # Work for the one thread that tokenizes, whatever the length of the text.
    TOKENIZES = "tokenizes"
    # Everything else that has a body.
    OTHER = "other"
    # Its body is not read here, if there is one.
    UNREAD = "unread"


# Routes whose bodies are described, so that their requests are ranked by the predicted length.
DESCRIBED: Final = {endpoint.value: endpoint for endpoint in Endpoint if endpoint is not Endpoint.OTHER}
TOKENIZING: Final = frozenset(
    {
        "/tokenize",
        "/detokenize",
        "/v1/messages/count_tokens",
        "/v1/chat/completions/render",
        "/v1/completions/render",
        "/v1/responses/render",
        "/v1/messages/render",
        "/v1/chat/completions/derender",
        "/v1/completions/derender",
    }
)
# Other POST routes that give the engine nothing to compute.
NOT_GENERATING: Final = frozenset(
    {
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/abort_requests",
        "/inference/v1/abort_requests",
        "/start_profile",
        "/stop_profile",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/collective_rpc",
        "/sleep",
        "/wake_up",
        "/release_kv_cache_memory",
        "/pause",
        "/resume",
        "/init_weight_transfer_engine",
        "/shutdown_weight_transfer_engine",
        "/start_weight_update",
        "/start_draft_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/update_weight_version",
        "/weight_checker",
    }
)
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_CANCEL: Final = ("/v1/responses/", "/cancel")
# Routes that take files in a form; everywhere else a body is JSON, whatever its content type says.
FORMS: Final = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})
# Probes, and the status that the operator reads: counters, no request.
OPEN_PATHS: Final = frozenset({"/health", "/ping", STATUS_PATH})
METRICS_PATH: Final = "/metrics"


def route_of(method: str, path: str) -> Route:
    """Returns what a request to this path means for the server."""
    if method not in _WITH_BODY or path in OPEN_PATHS or is_metrics(path):
        return Route.UNREAD
    if path in TOKENIZING:
        return Route.TOKENIZES
    cancels = path.startswith(_CANCEL[0]) and path.endswith(_CANCEL[1])
    return Route.OTHER if method != "POST" or path in NOT_GENERATING or cancels else Route.GENERATES


def endpoint_of(path: str) -> Endpoint:
    """Returns how bodies sent there are described."""
    return DESCRIBED.get(path, Endpoint.OTHER)


def needs_key(method: str, path: str, guard_metrics: bool) -> bool:
    """Returns whether a request needs an API key, where there are keys. A browser's preflight (OPTIONS) carries none."""
    if is_metrics(path):
        return guard_metrics
    return method != "OPTIONS" and path not in OPEN_PATHS


def is_metrics(path: str) -> bool:
    """Returns whether vLLM answers with its metrics: it does so for every method and every path that begins like this."""
    return path.startswith(METRICS_PATH)
