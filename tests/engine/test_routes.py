"""Which routes generate, which tokenize, and which bodies are not read at all."""

import pytest

from alise_engine.api.routes import Route, needs_key, route_of

ROUTES = [
    pytest.param("POST", "/v1/chat/completions", Route.GENERATES, id="a chat"),
    pytest.param("POST", "/a/route/of/tomorrow", Route.GENERATES, id="a route that this version does not know"),
    pytest.param("POST", "/v1/chat/completions/", Route.GENERATES, id="a known route with a slash at its end"),
    pytest.param("POST", "/tokenize", Route.TOKENIZES, id="the tokenizer"),
    pytest.param("POST", "/v1/messages/count_tokens", Route.TOKENIZES, id="counting tokens"),
    pytest.param("POST", "/update_weights", Route.OTHER, id="new weights"),
    pytest.param("POST", "/v1/responses/resp_1/cancel", Route.OTHER, id="cancelling a response"),
    pytest.param("PUT", "/v1/chat/completions", Route.OTHER, id="another method with a body"),
    pytest.param("GET", "/v1/models", Route.UNREAD, id="a method without a body"),
    pytest.param("POST", "/ping", Route.UNREAD, id="a probe"),
    pytest.param("POST", "/metrics/x", Route.UNREAD, id="metrics"),
]


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_what_a_request_means_for_the_server(method: str, path: str, route: Route) -> None:
    assert route_of(method, path) is route


@pytest.mark.parametrize(("method", "path", "route"), [row for row in ROUTES if row.values[2] is not Route.UNREAD])
def test_what_works_or_changes_something_needs_a_key(method: str, path: str, route: Route) -> None:
    assert needs_key(method, path, guard_metrics=False)
