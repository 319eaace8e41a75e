"""The page on a person's machine: the operator's, with the requests that the person may read."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from alise_contract import page
from kubectl_alise import page_parts
from kubectl_alise.errors import NoClusterError, NotAllowedError, PluginError
from kubectl_alise.forward import Answer
from kubectl_alise.ui import MOST_PODS, Ui, serving
from tests.operator.page.installation import HOSTILE, PODS, cluster, some_requests
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import listed, pod, request

ENGINE = "/engines/team/chat"
KEY = "secret-key"


class FixedOperator:
    """An operator that answers each path with its places."""

    def __init__(self, status: int = 200, error: PluginError | None = None) -> None:
        self.status, self.error = status, error
        self.asked: list[str] = []

    def get(self, path: str) -> Answer:
        self.asked.append(path)
        if self.error is not None:
            raise self.error
        places = ((page.ACCOUNT_PLACE, ""), (page.REQUESTS_PLACE, "with your own rights"))
        text = "".join(f"<!--{place}-->{text}<!--/{place}-->" for place, text in places)
        return Answer(self.status, "text/html; charset=utf-8", text.encode())


def text_of(target: str, seen: FakeCluster | None = None, operator: FixedOperator | None = None) -> str:
    ui = Ui(operator or FixedOperator(), lambda _: seen if seen is not None else cluster(*some_requests()))
    return ui.get(target).body.decode()


def test_the_requests_are_filled_in_by_rank() -> None:
    text = text_of(ENGINE)
    assert "with your own rights" not in text
    assert text.index("01HF3Q8ZK4-nina") < text.index("req-7b34") < text.index("req-7b39")
    assert f"{PODS[0]}: 5 run on 8 slots, 3 wait, 2 are preempted; about 94 s of work." in text
    assert "its scheduler does not" not in text


def test_a_pod_that_does_not_answer_is_named() -> None:
    assert f'<p class="missing">{PODS[2]}: ' in text_of(ENGINE)


def test_a_request_is_explained_if_it_is_asked_for() -> None:
    assert "14 requests rank before it" in text_of(f"{ENGINE}?request=01HF3Q8ZK4-nina")
    assert "14 requests rank before it" not in text_of(ENGINE)


def test_a_request_that_no_pod_knows_is_named() -> None:
    seen = FakeCluster({"pods": {"items": [pod("p1")]}}, {}, {("p1", "alise-scheduler"): (1, '{"matches": []}', "command terminated")})
    html = page_parts.account_html("req-9", {"p1": {"matches": []}})
    assert html.startswith('<p class="missing">No pod that answered knows a request req-9.')
    assert html in text_of(f"{ENGINE}?request=req-9", seen)


def test_a_person_who_may_not_read_the_requests_is_told_so_on_the_page() -> None:
    seen = FakeCluster({"pods": NotAllowedError("you may not do this: list pods. Ask for the right")})
    assert "The requests cannot be read: you may not do this: list pods. Ask for the right." in text_of(ENGINE, seen)


def test_an_operator_that_does_not_answer_has_a_page_that_says_so() -> None:
    ui = Ui(FixedOperator(error=NoClusterError("the operator's page does not answer")), lambda _: cluster())
    answer = ui.get("/")
    assert (answer.status, b"The operator&#x27;s page cannot be read" in answer.body) == (502, True)


def test_other_pages_are_the_operators_own() -> None:
    assert "with your own rights" in text_of("/")
    assert "with your own rights" in text_of(ENGINE, operator=FixedOperator(status=404))


def test_a_resource_with_many_pods_asks_the_first_only() -> None:
    names = [f"p{number}" for number in range(MOST_PODS + 2)]
    answers = {(name, "alise-scheduler"): (0, '{"no": 1}', "") for name in names}
    seen = FakeCluster({"pods": {"items": [pod(name) for name in names]}}, {}, answers)
    assert "Only the first 16 of 18 pods were asked." in text_of(ENGINE, seen)
    assert len([call for call in seen.calls if call[0] == "exec"]) == MOST_PODS


ODD: list[Any] = [
    pytest.param({"request_id": HOSTILE}, id="id of a client"),
    pytest.param({"class": HOSTILE}, id="class"),
    pytest.param({"phase": "waiting", "standing": {"job_level": HOSTILE, "turn_seconds": 1.0, "rule": HOSTILE}}, id="standing"),
    pytest.param({"preemptions": 1, "generated_tokens": 3}, id="nothing odd"),
]


@pytest.mark.parametrize("changes", ODD)
def test_what_a_client_or_a_pod_wrote_is_text(changes: dict[str, Any]) -> None:
    html = page_parts.requests_html({HOSTILE: listed(request(**changes))}, {HOSTILE: HOSTILE})
    match = {"request_id": HOSTILE, "model": HOSTILE, "class": HOSTILE, "tenant": HOSTILE, "sentences": [HOSTILE]}
    html += page_parts.account_html(HOSTILE, {HOSTILE: {"matches": [match]}})
    html += page_parts.page_html(HOSTILE, HOSTILE)
    assert "<img" not in html
    assert "<script" not in html
    assert 'onerror="' not in html


def test_an_answer_that_is_none_is_named() -> None:
    seen = cluster(request(predicted_tokens="many"))
    assert "was not understood" in text_of(ENGINE, seen)


@contextmanager
def served(ui: Ui) -> Iterator[int]:
    server, address = serving(ui, 0, KEY)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = int(server.server_address[1])
        assert address == f"http://127.0.0.1:{port}/?key={KEY}"
        try:
            yield port
        finally:
            server.shutdown()
            thread.join(timeout=5)


def asked(port: int, target: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_a_browser_with_the_key_gets_the_page_with_its_headers() -> None:
    with served(Ui(FixedOperator(), lambda _: cluster(*some_requests()))) as port:
        status, headers, _ = asked(port, f"{ENGINE}?key={KEY}")
        assert (status, headers["Location"]) == (303, ENGINE)
        status, found, body = asked(port, headers["Location"], Cookie=headers["Set-Cookie"].partition(";")[0])
    assert (status, b"req-7b34" in body) == (200, True)
    assert {name: found[name] for name in page.HEADERS} == dict(page.HEADERS)


def test_a_browser_without_the_key_reaches_neither_operator_nor_cluster() -> None:
    operator, seen = FixedOperator(), cluster()
    with served(Ui(operator, lambda _: seen)) as port:
        status, headers, body = asked(port, ENGINE)
    assert (status, operator.asked, seen.calls) == (403, [], [])
    assert b"Open the address" in body
    assert headers["Content-Security-Policy"] == page.HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_is_read_only(method: str) -> None:
    with served(Ui(FixedOperator(), lambda _: cluster())) as port:
        status, _, _ = asked(port, "/", method, Cookie=f"alise_ui_{port}={KEY}")
    assert status == 501


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PluginError, match=f"port {port} is in use: give another one with --port, or --port=0 for a free one"):
            serving(Ui(FixedOperator(), lambda _: cluster()), port, KEY)


@pytest.mark.parametrize(
    ("error", "is_printed"),
    [pytest.param(BrokenPipeError(), False, id="a browser that went away"), pytest.param(ValueError("a bug"), True, id="a bug")],
)
def test_the_terminal_shows_bugs_alone(error: Exception, is_printed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    server, _ = serving(Ui(FixedOperator(), lambda _: cluster()), 0, KEY)
    with server:
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))  # type: ignore[arg-type]
    assert ("a bug" in capsys.readouterr().err) is is_printed
