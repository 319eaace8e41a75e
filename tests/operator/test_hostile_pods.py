"""N2: pods that answer their poll with what no pod should send, and pods that are not what they seem. A real server, on loopback."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from alise_operator import poller as polling
from alise_operator.observation import Observation, Trouble
from alise_operator.pod_answer import MAX_BODY_BYTES, MAX_NAME_CHARS, MAX_REASONS, bounded, depth, read_answer
from alise_operator.pods import MAX_LOOKED_AT, PODS, REPLICA_SETS, address_refusal, find_pods, view
from alise_operator.poller import MAX_POLLED, Poller
from alise_operator.status import degraded
from tests.operator.builders import (
    OWNER,
    deployment_object,
    make_pod,
    make_report,
    make_workload,
    pod_object,
    report_text,
    set_object,
)
from tests.operator.fake_kube import FakeKube

OK = b"HTTP/1.1 200 OK\r\n"
DEEP = b"[" * 30_000 + b"]" * 30_000


class HostilePod:
    """A server that answers each request with these pieces, the last one again and again until the client goes."""

    def __init__(self, *pieces: bytes, pause_seconds: float = 0.0) -> None:
        self.pieces = pieces
        self.pause_seconds = pause_seconds
        self.port = 0
        self.requests: list[bytes] = []
        self.sent_bytes = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            for piece in self.pieces:
                await self._send(writer, piece)
            while self.pieces[-1] and not writer.is_closing():
                await self._send(writer, self.pieces[-1])
                await asyncio.sleep(self.pause_seconds)
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        writer.write(piece)
        await writer.drain()
        self.sent_bytes += len(piece)


@asynccontextmanager
async def listening(pod: HostilePod) -> AsyncIterator[HostilePod]:
    server = await asyncio.start_server(pod.answer, "127.0.0.1", 0)
    pod.port = server.sockets[0].getsockname()[1]
    try:
        yield pod
    finally:
        server.close()


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> tuple[bytes, bytes]:
    """An answer that ends."""
    head = b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers])
    return head + b"\r\n\r\n" + body, b""


async def polled(pod: HostilePod, polls: int = 2) -> str:
    """Returns why the pod has no report after some polls in a row."""
    async with listening(pod), Poller(pod.port) as poller:
        for _ in range(polls):
            (seen,) = await poller.poll([make_pod(address="127.0.0.1", report=None)])
    assert seen.report is None
    return seen.report_error or ""


@pytest.fixture(autouse=True)
def every_poll_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "POLL_FRESH_SECONDS", -1.0)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        pytest.param((OK + b"\r\n", b" " * 65536), "answered more than 64 KiB", id="an endless body (N2)"),
        pytest.param((OK + b"Content-Length: 300000000\r\n\r\n", b" " * 65536), "answered more than 64 KiB", id="a body of 300 MB"),
        pytest.param(
            (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
            "answered more than 64 KiB",
            id="endless chunks",
        ),
        pytest.param(
            whole(gzip.compress(b"[" + b" " * 10_000_000 + b"]"), b"Content-Encoding: gzip"),
            "answered in an encoding that was not requested",
            id="a body that inflates to 10 MB (N2)",
        ),
        pytest.param(whole(DEEP), "nested more than 32 levels deep", id="60 KB of brackets (N2)"),
        pytest.param(
            whole(b'{"sidecar": ' * 5_000 + b"1" + b"}" * 5_000), "nested more than 32 levels deep", id="a known field inside itself"
        ),
        pytest.param((OK, b"X-Filler: a\r\n"), "broke", id="endless headers"),
        pytest.param((OK + b"X-Filler: ", b"a" * 4096), "broke", id="a header without an end"),
        pytest.param((b"HTTP/1.1 ", b"2" * 4096), "broke", id="a status without an end"),
        pytest.param((b"\x00\xff\r\n" * 100, b""), "broke", id="no HTTP at all"),
    ],
)
async def test_a_pod_that_sends_too_much_is_an_error_like_any_other(pieces: tuple[bytes, ...], said: str) -> None:
    pod = HostilePod(*pieces)
    assert said in await polled(pod)
    # What the sockets' buffers took before the connection was closed, for two polls; the loopback's are a few MB each.
    assert pod.sent_bytes < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((OK + b"\r\n", b" "), id="a body of a byte at a time"),
        pytest.param((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), id="a status that only announces another"),
    ],
)
async def test_a_pod_that_takes_its_time_has_one_deadline_for_all_of_it(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "POLL_SECONDS", 0.1)
    assert "no answer from /alise/v1/status within" in await polled(HostilePod(*pieces, pause_seconds=0.01))


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_no_redirect_is_followed(status: bytes) -> None:
    async with listening(HostilePod(*whole(report_text().encode()))) as secret:
        pod = HostilePod(*whole(b"", b"Location: http://127.0.0.1:%d/" % secret.port, status=status))
        assert f"answered {status[:3].decode()}" in await polled(pod)
    assert secret.requests == []


async def test_no_cookie_of_one_pod_is_kept_or_sent_to_another() -> None:
    pod = HostilePod(*whole(report_text().encode(), b"Set-Cookie: a=" + b"b" * 3000))
    async with listening(pod), Poller(pod.port) as poller:
        for uid in ("one", "two"):
            await poller.poll([make_pod(uid=uid, address="127.0.0.1", report=None)])
    assert len(pod.requests) == 2
    assert all(b"cookie" not in request.lower() for request in pod.requests)


async def test_only_the_first_pods_are_asked() -> None:
    pod = HostilePod(*whole(report_text().encode()))
    async with listening(pod), Poller(pod.port) as poller:
        seen = await poller.poll(make_pod(name=f"p-{n}", uid=f"u-{n}", address="127.0.0.1", report=None) for n in range(MAX_POLLED + 50))
    assert len(pod.requests) == MAX_POLLED
    assert [one.report is not None for one in seen] == [True] * MAX_POLLED + [False] * 50


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        pytest.param(b'{"a": [1, {"b": 2}]}', 3, id="brackets of both kinds"),
        pytest.param(b'{"a": "[[[[\\"[["}', 1, id="those in a text do not count"),
        pytest.param(b"]]]]", 0, id="only closing ones"),
        pytest.param(DEEP, 30_000, id="more than a stack holds"),
    ],
)
def test_the_depth_of_a_text_is_counted_without_parsing_it(text: bytes, levels: int) -> None:
    assert depth(text) == levels


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"contract_version": ' + b"9" * 60_000 + b"}", id="a number of 60,000 digits"),
        pytest.param(b'{"contract_version": 1e999}', id="a number beyond all"),
        pytest.param(b'{"boot_id": "\\ud800"}', id="half a character"),
        pytest.param(b'{"admission": {"failed_open_by_reason": [1]}}', id="a list for a map"),
        pytest.param(b"\x00" * 1000, id="zeros"),
        pytest.param(b"x" * (MAX_BODY_BYTES + 1), id="a byte too many"),
    ],
)
def test_whatever_a_pod_says_is_a_report_or_an_error_in_few_printable_words(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        read_answer(200, "", body)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_texts_of_a_report_are_short_and_printable_and_few() -> None:
    reasons = {f"\x1b[31m\u202e{n} " + "a" * 1000: n for n in range(1000)}
    report = bounded(make_report(boot_id="\x07" * 5000, failed_open_by_reason=tuple(reasons.items())))
    assert len(report.failed_open_by_reason) == MAX_REASONS
    assert all(len(text) <= MAX_NAME_CHARS and text.isprintable() for text, _ in report.failed_open_by_reason)
    assert report.boot_id == ""


def cluster_with(*pods: dict[str, Any]) -> FakeKube:
    kube = FakeKube()
    kube.put(REPLICA_SETS, set_object())
    for pod in pods:
        kube.put(PODS, pod)
    return kube


def named(name: str, **meta: Any) -> dict[str, Any]:
    pod = pod_object(ready=True)
    return pod | {"metadata": pod["metadata"] | {"name": name, "uid": f"uid-{name}"} | meta}


@pytest.mark.parametrize(
    "references",
    [
        pytest.param([], id="with our labels alone"),
        pytest.param([{"kind": "ReplicaSet", "uid": "uid-other", "controller": True}], id="of another ReplicaSet"),
        pytest.param([{"kind": "ReplicaSet", "uid": "uid-set"}], id="of our ReplicaSet, which does not control it"),
        pytest.param([{"kind": "AliseEngine", "uid": OWNER.uid, "controller": True}], id="that names the resource itself"),
    ],
)
async def test_a_pod_that_is_not_proven_to_be_ours_is_not_looked_at(references: list[dict[str, Any]]) -> None:
    kube = cluster_with(named("ours"), named("strange", ownerReferences=references))
    found = await find_pods(kube, OWNER, deployment_object())
    assert [pod.name for pod in found.pods] == ["ours"]


async def test_a_replica_set_with_our_labels_that_is_not_our_deployments_proves_nothing() -> None:
    kube = cluster_with(named("ours"))
    strange = set_object()
    strange["metadata"] |= {"name": "strange", "uid": "uid-strange", "ownerReferences": []}
    kube.put(REPLICA_SETS, strange)
    kube.put(PODS, named("theirs", ownerReferences=[{"kind": "ReplicaSet", "uid": "uid-strange", "controller": True}]))
    assert [pod.name for pod in (await find_pods(kube, OWNER, deployment_object())).pods] == ["ours"]


async def test_a_deployment_that_is_not_the_resources_has_no_pods_of_it() -> None:
    kube = cluster_with(named("ours"))
    foreign = deployment_object()
    foreign["metadata"]["ownerReferences"] = []
    assert (await find_pods(kube, OWNER, foreign)).pods == ()


@pytest.mark.parametrize("strangers", [False, True], ids=["pods of its own", "pods that only carry its labels"])
async def test_of_thousands_of_pods_some_pages_are_read_and_no_more(strangers: bool) -> None:
    changes: dict[str, Any] = {"ownerReferences": []} if strangers else {}
    kube = cluster_with(*(named(f"p-{number:04}", **changes) for number in range(3 * MAX_LOOKED_AT)))
    found = await find_pods(kube, OWNER, deployment_object())
    assert (len(found.pods), found.is_cut) == (0 if strangers else MAX_LOOKED_AT, True)
    assert kube.pages_read <= MAX_LOOKED_AT // 100 + 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param("127.0.0.1", "is not the address of a pod", id="loopback"),
        pytest.param("::1", "is not the address of a pod", id="loopback in IPv6"),
        pytest.param("::ffff:127.0.0.1", "is not the address of a pod", id="loopback in disguise"),
        pytest.param("169.254.169.254", "is not the address of a pod", id="the metadata of a cloud (N2)"),
        pytest.param("fd00:ec2::254", "is not the address of a pod", id="the metadata of a cloud in IPv6"),
        pytest.param("100.100.100.200", "is not the address of a pod", id="the metadata of another cloud"),
        pytest.param("0.0.0.0", "is not the address of a pod", id="no address in particular"),
        pytest.param("224.0.0.1", "is not the address of a pod", id="many addresses"),
        pytest.param("localhost", "is not an IP address", id="a name"),
        pytest.param("10.0.0.1@evil.example/", "is not an IP address", id="more than an address"),
        pytest.param("10.1.1.1", "hostNetwork", id="the node's address"),
    ],
)
def test_an_address_that_is_no_pods_own_is_not_polled(address: str, said: str) -> None:
    pod = pod_object(ready=True)
    pod["status"] |= {"podIP": address, "hostIP": "10.1.1.1"}
    seen = view(pod)
    assert seen.address == ""
    assert said in (seen.report_error or "")


@pytest.mark.parametrize("address", ["10.42.0.7", "100.64.3.4", "fd12:3456::7", "203.0.113.9"])
def test_a_pods_own_address_is_polled(address: str) -> None:
    pod = pod_object(ready=True)
    pod["status"] |= {"podIP": address, "hostIP": "10.1.1.1"}
    assert (address_refusal(pod), view(pod).address) == (None, address)


def test_a_pod_on_its_nodes_network_is_not_polled() -> None:
    pod = pod_object(ready=True) | {"spec": {"hostNetwork": True}}
    assert "hostNetwork" in (view(pod).report_error or "")


def test_of_ten_thousand_pods_in_trouble_some_are_named_and_the_others_counted() -> None:
    troubles = [Trouble("ImagePull", f"pod p-{number}: " + "no such image " * 10) for number in range(MAX_LOOKED_AT)]
    pods = tuple(make_pod(name=f"p-{number}", troubles=(trouble,)) for number, trouble in enumerate(troubles))
    workload = make_workload(desired=10_000, replicas=10_000, ready=0)
    message = degraded(None, Observation(workload, pods, is_cut=True)).message
    assert message.startswith("500 of 10,000 pods were checked; pod p-0: no such image")
    named = message.count("; pod p-")
    assert message.endswith(f"; and {MAX_LOOKED_AT - named} more")
    assert len(message) <= 1500


def test_a_single_text_that_is_too_long_is_cut_and_the_others_are_counted() -> None:
    pods = tuple(make_pod(name=name, troubles=(Trouble("PodsCrashing", name * 2000),)) for name in ("a", "b"))
    message = degraded(None, Observation(make_workload(ready=0), pods)).message
    assert message.endswith("a…; and 1 more")
    assert len(message) <= 1500
