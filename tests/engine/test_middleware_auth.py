"""The middleware finds out who asks: API keys, and the headers that name a class and a tenant."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alise_engine.api.identity import Rules
from tests.engine.api_fakes import FakeAdmission, admission_server
from tests.engine.middleware_server import CHAT, Server, chat, serving

# --- class and tenant -------------------------------------------------------------------------------------------------------------


async def test_the_headers_of_class_and_tenant_count_only_where_the_resource_says_so(tmp_path: Path) -> None:
    headers = {"x-llm-d-inference-objective": "gold", "x-llm-d-inference-fairness-id": "team-b"}
    seen = []
    for trusted in (False, True):
        folder = tmp_path / str(trusted)
        folder.mkdir()
        rules = Rules(classes=frozenset({"gold"}), trust_headers=trusted)
        async with admission_server(folder / "admission.sock") as sidecar, serving(folder, rules=rules) as server:
            exchange = await server.post(chat(), headers=headers)
            seen.append((sidecar.requests[0].objective, sidecar.requests[0].tenant, exchange.response_headers["x-alise-class"]))
    assert seen == [("", "", "default"), ("gold", "team-b", "gold")]


async def test_the_answer_says_which_class_and_outcome_the_request_had(server: Server, sidecar: FakeAdmission) -> None:
    exchange = await server.post(chat())
    assert (exchange.response_headers["x-alise-class"], exchange.response_headers["x-alise-outcome"]) == ("default", "admitted")
    assert server.metric("http_requests_total", **{"class": "default", "outcome": "admitted"}) == 1


# --- API keys (R5) ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded(tmp_path: Path, sidecar: FakeAdmission) -> AsyncIterator[Server]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team-a").write_text("sk-a\n")
    rules = Rules(classes=frozenset({"gold"}), tenant_classes={"team-a": "gold"})
    async with serving(tmp_path, auth_dir=keys, rules=rules) as server:
        yield server


async def test_the_status_says_whether_there_is_any_key(tmp_path: Path, guarded: Server) -> None:
    assert guarded.api.report().lacks_api_keys is False
    empty = tmp_path / "empty"
    empty.mkdir()
    async with serving(tmp_path, auth_dir=empty) as server:
        assert server.api.report().lacks_api_keys is True


GUARDED = [
    pytest.param("POST", CHAT, id="chat"),
    pytest.param("POST", "/invocations", id="SageMaker's route"),
    pytest.param("POST", "/tokenize", id="the tokenizer"),
    pytest.param("POST", "/scale_elastic_ep", id="scaling"),
    pytest.param("POST", "/a/route/of/tomorrow", id="a route that this version does not know"),
    pytest.param("GET", "/v1/models", id="the models"),
    pytest.param("GET", "/version", id="the version"),
    pytest.param("GET", "/health/../v1/models", id="a path that begins like the probe's"),
    pytest.param("POST", "/health/", id="a path that ends otherwise than the probe's"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_without_a_key_nothing_is_answered(guarded: Server, sidecar: FakeAdmission, method: str, path: str) -> None:
    exchange = await guarded.post(chat(), path, {"authorization": "Bearer wrong"}, method)
    assert (exchange.status, exchange.json()["error"]["code"], exchange.response_headers["www-authenticate"]) == (401, 401, "Bearer")
    assert (guarded.bodies, sidecar.requests) == ([], [])


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("headers", [{"authorization": "Bearer sk-a"}, {"x-api-key": "sk-a"}], ids=["bearer", "as Anthropic's clients do"])
async def test_with_a_key_everything_is(guarded: Server, method: str, path: str, headers: dict[str, str]) -> None:
    assert (await guarded.post(chat(), path, headers, method)).status == 200


@pytest.mark.parametrize("path", ["/health", "/ping", "/metrics", "/alise/v1/status"])
async def test_probes_and_the_status_need_no_key(guarded: Server, path: str) -> None:
    assert (await guarded.post(b"{}", path, method="GET")).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metricsx", "/metrics/../x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_metrics_are_guarded_by_choice(tmp_path: Path, path: str, method: str) -> None:
    """vLLM answers with them on all of these."""
    (tmp_path / "keys").mkdir()
    async with serving(tmp_path, auth_dir=tmp_path / "keys", guards_metrics=True) as server:
        assert (await server.post(b"{}", path, method=method)).status == 401


@pytest.mark.parametrize("path", ["/health", "/ping", "/alise/v1/status", "/metrics"])
async def test_what_needs_no_key_is_not_counted_as_a_request(guarded: Server, sidecar: FakeAdmission, path: str) -> None:
    exchange = await guarded.post(b"{}", path)
    assert (sidecar.requests, "x-alise-outcome" in exchange.response_headers) == ([], False)


async def test_the_key_says_whose_request_it_is_and_which_class_it_has(guarded: Server, sidecar: FakeAdmission) -> None:
    headers = {"authorization": "Bearer sk-a", "x-llm-d-inference-fairness-id": "team-b", "x-llm-d-inference-objective": "platinum"}
    exchange = await guarded.post(chat(), headers=headers)
    assert (sidecar.requests[0].tenant, sidecar.requests[0].objective) == ("team-a", "gold")
    assert exchange.response_headers["x-alise-class"] == "gold"


async def test_a_web_socket_needs_a_key_too(guarded: Server) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded.app({"type": "websocket", "path": "/v1/realtime", "headers": []}, never_received, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def never_received() -> Any:
    raise AssertionError("nothing is read")
