"""What the API server's half counts and tells of requests that never reach the engine."""

from tests.engine.api_fakes import FakeAdmission, eventually
from tests.engine.middleware_server import Server, chat


async def test_the_sidecar_hears_of_an_end_only_where_it_was_asked(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    for _ in range(3):
        await server.post(b"no JSON")
    await server.post(chat(refused=True))
    await eventually(lambda: sidecar.requests[-1].withdrawn, "the end of what vLLM refused")
    jobs = [request.job_id for request in sidecar.requests]
    assert [request.withdrawn for request in sidecar.requests] == [False, False, True]
    assert jobs[1] == jobs[2] != jobs[0]
