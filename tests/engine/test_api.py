"""What the API server's half counts and tells of requests that never reach the engine."""

from pathlib import Path
from typing import Any

from tests.engine.api_fakes import Exchange, FakeAdmission, eventually
from tests.engine.middleware_server import CHAT, Server, chat, serving


async def test_the_sidecar_hears_of_an_end_only_where_it_was_asked(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    for _ in range(3):
        await server.post(b"no JSON")
    await server.post(chat(refused=True))
    await eventually(lambda: sidecar.requests[-1].withdrawn, "the end of what vLLM refused")
    jobs = [request.job_id for request in sidecar.requests]
    assert [request.withdrawn for request in sidecar.requests] == [False, False, True]
    assert jobs[1] == jobs[2] != jobs[0]


async def test_a_client_that_goes_away_before_its_body_is_there_is_not_counted_as_neutral(tmp_path: Path) -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async with serving(tmp_path) as server:
        exchange = Exchange(CHAT, b"")
        await server.app(exchange.scope, gone, exchange.send)
        counts = {
            outcome: server.metric("http_requests_total", **{"class": "default", "outcome": outcome})
            for outcome in ("neutral", "disconnected")
        }
    assert counts == {"neutral": 0, "disconnected": 1}
