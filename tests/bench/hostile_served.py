"""The engine and the scheduler that hostile clients are let loose on, and a relay between the two that hears what both say.

The relay stands on both sockets. A second Watch would end the scheduler's own session, so listening in between is the one way to see a
served pod as it is: who the scheduler was asked about, what it answered, which ranks it sent, and what the engine says of its requests.
`hostile_beside.py` and `hostile_forging.py` start it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from alise_contract.names import (
    ADMISSION_SOCKET,
    ADMIT_DEADLINE_ENV,
    AUTH_CLASSES_ENV,
    AUTH_DIR_ENV,
    CLASSES_ENV,
    CONTROL_SOCKET,
    MAX_PENDING_ENV,
    PLAN_EXPIRES_SECONDS,
    POD_KEY_FILE,
    SOCKET_DIR_ENV,
    pack_priority,
)
from alise_contract.pod_key import pod_key
from alise_contract.v1 import admission_pb2 as admission
from alise_contract.v1 import engine_control_pb2 as control
from tests.bench.serving_processes import ENGINE_ENV, process, wait_healthy
from tests.cluster.control_plane import free_port

# Each tenant's API key, where there are keys.
KEYS: Final = {"honest": "sk-honest", "hostile": "sk-hostile"}
GOLD: Final = "gold"
MAX_MODEL_LEN: Final = 2048
FLAGS: Final = ("--served-model-name", "tiny", "--max-model-len", str(MAX_MODEL_LEN), "--dtype", "float32", "--enable-scale-out")
_WATCH: Final = "/alise.v1.EngineControl/Watch"
_APPLY: Final = "/alise.v1.EngineControl/Apply"
_ASK: Final = "/alise.v1.Admission/Admit"
# A plan that is nearly as old as plans get: it may have been too old when the engine looked.
_STALE_SECONDS: Final = 0.75 * PLAN_EXPIRES_SECONDS
_MESSAGE_BYTES: Final = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


@dataclass(frozen=True, slots=True)
class Setting:
    """How the engine and the scheduler are set up; what is not named is the default."""

    slots: int = 8
    keyed: bool = False
    max_pending: int | None = None
    # There is a class `gold`; with keys it is the honest tenant's.
    classes: bool = False
    # Milliseconds; None: the default.
    admit_deadline_ms: int | None = None

    @property
    def name(self) -> str:
        """What a row says of it."""
        pending = f", maxPending {self.max_pending}" if self.max_pending is not None else ""
        return f"{self.slots} slots, {'API keys' if self.keyed else 'no keys'}{pending}"

    def headers(self, tenant: str) -> dict[str, str]:
        """What a tenant's client sends with every request."""
        return {"authorization": f"Bearer {KEYS[tenant]}"} if self.keyed else {}


@dataclass(frozen=True, slots=True)
class Pod:
    """An engine and a scheduler that serve."""

    port: int
    engine_sockets: Path
    scheduler_sockets: Path
    engine_pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(model: Path, setting: Setting, apart: bool = False) -> Iterator[Pod]:
    """Yield the pod once it is healthy. `apart` gives the two programs a socket folder each, with one key, for the relay to join."""
    bin_folder, port = Path(sys.executable).parent, free_port()
    with tempfile.TemporaryDirectory(prefix="alise-") as folder, contextlib.ExitStack() as stack:
        sockets = Path(folder) / "e"
        others = Path(folder) / "s" if apart else sockets
        pod_key(sockets)
        if apart:
            others.mkdir(mode=0o700)
            shutil.copy2(sockets / POD_KEY_FILE, others / POD_KEY_FILE)
        environ = {**_environ(), **_settings(Path(folder), setting)}
        supervise = [str(bin_folder / "alise-scheduler"), "supervise"]
        stack.enter_context(process(supervise, {**environ, SOCKET_DIR_ENV: str(others)}, Path(folder) / "scheduler.log"))
        command = [str(bin_folder / "alise-engine"), "serve", str(model), "--port", str(port), "--max-num-seqs", str(setting.slots), *FLAGS]
        log = Path(folder) / "engine.log"
        engine = stack.enter_context(process(command, {**environ, SOCKET_DIR_ENV: str(sockets)}, log))
        wait_healthy(port, engine, log)
        yield Pod(port, sockets, others, engine.pid)


def _environ() -> dict[str, str]:
    """What a user's shell has: other benchmarks set vLLM up for themselves."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "ALISE_"))}
    return {**inherited, **ENGINE_ENV, "VLLM_ENABLE_RESPONSES_API_STORE": "1", "ALISE_HTTP_PORT": "0"}


def _settings(folder: Path, setting: Setting) -> Mapping[str, str]:
    made = {}
    if setting.keyed:
        keys = folder / "keys"
        keys.mkdir()
        for tenant, key in KEYS.items():
            (keys / tenant).write_text(key + "\n")
        made[AUTH_DIR_ENV] = str(keys)
    if setting.classes:
        made[CLASSES_ENV] = json.dumps([{"name": GOLD, "weight": 16}])
        made |= {AUTH_CLASSES_ENV: json.dumps({"honest": GOLD})} if setting.keyed else {}
    if setting.admit_deadline_ms is not None:
        made[ADMIT_DEADLINE_ENV] = str(setting.admit_deadline_ms)
    if setting.max_pending is not None:
        made[MAX_PENDING_ENV] = str(setting.max_pending)
    return made


# --- the relay --------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Heard:
    """All messages, in order of arrival."""

    # What the scheduler was asked, and what it answered, by job.
    asks: list[admission.AdmitRequest] = field(default_factory=list)
    given: dict[str, admission.AdmitResponse] = field(default_factory=dict)
    # Priorities that the scheduler's plans gave each job.
    ranked: dict[str, set[int]] = field(default_factory=dict)
    # The engine's reports of each of its requests, the newest last, and the hint that came with the first.
    rows: dict[str, list[control.EngineRequest]] = field(default_factory=dict)
    finished: dict[str, control.Finished] = field(default_factory=dict)
    # Requests that were seen while there was no fresh plan: all requests are neutral then.
    unplanned: set[str] = field(default_factory=set)
    watched: bool = False
    _planned_seconds: float = float("-inf")

    def admitted(self) -> list[admission.AdmitRequest]:
        """The questions so far, without those that only take one back."""
        return [ask for ask in self.asks if not ask.withdrawn]

    def allowed(self, job_id: str) -> set[int]:
        """The priorities that this job may have according to the scheduler's answers."""
        answer = self.given.get(job_id)
        stamped = {answer.admitted.priority} if answer is not None and answer.WhichOneof("decision") == "admitted" else set()
        return stamped | self.ranked.get(job_id, set())

    def hear(self, method: str, message: bytes) -> None:
        """Take in one message."""
        if method == _ASK + "?":
            self.asks.append(admission.AdmitRequest.FromString(message))
        elif method == _ASK:
            answer = admission.AdmitAnswer.FromString(message)
            if answer.HasField("response"):
                self.given[answer.job_id] = answer.response
        elif method == _APPLY + "?":
            self._planned_seconds = time.monotonic()
            for rank in control.ApplyRequest.FromString(message).ranks:
                self.ranked.setdefault(rank.job_id, set()).add(pack_priority(rank.level, rank.order))
        elif method == _WATCH:
            said = control.WatchResponse.FromString(message)
            self.watched = True
            for row in said.snapshot.requests if said.HasField("snapshot") else said.update.requests:
                self.rows.setdefault(row.request_id, []).append(row)
                if time.monotonic() - self._planned_seconds > _STALE_SECONDS:
                    self.unplanned.add(row.request_id)
            self.finished.update({end.request_id: end for end in said.update.finished})


@contextlib.asynccontextmanager
async def relayed(pod: Pod) -> AsyncIterator[Heard]:
    """Join the two halves of a pod that was started `apart`, and listen."""
    heard = Heard()
    async with (
        _relay_questions(pod.scheduler_sockets / ADMISSION_SOCKET, pod.engine_sockets / ADMISSION_SOCKET, heard),
        _relay(pod.engine_sockets / CONTROL_SOCKET, pod.scheduler_sockets / CONTROL_SOCKET, heard),
    ):
        yield heard


@contextlib.asynccontextmanager
async def _relay_questions(behind: Path, before: Path, heard: Heard) -> AsyncIterator[None]:
    async def connected(asking: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            answering, questions = await asyncio.open_unix_connection(behind)
            await asyncio.gather(_pump(asking, questions, _ASK + "?", heard), _pump(answering, answers, _ASK, heard))
        answers.close()

    async with await asyncio.start_unix_server(connected, before):
        yield


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, heard: Heard) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            size = await reader.readexactly(4)
            message = await reader.readexactly(int.from_bytes(size, "little"))
            heard.hear(method, message)
            writer.write(size + message)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _relay(behind: Path, before: Path, heard: Heard) -> AsyncIterator[None]:
    server = grpc.aio.server(options=_MESSAGE_BYTES)
    async with grpc.aio.insecure_channel(f"unix:{behind}", options=_MESSAGE_BYTES) as channel:
        server.add_generic_rpc_handlers((_Relay(channel, heard),))
        server.add_insecure_port(f"unix:{before}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


class _Relay(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Every method as a stream of bytes in both directions, which is what a single message is, too."""

    def __init__(self, channel: grpc.aio.Channel, heard: Heard) -> None:
        self._channel = channel
        self._heard = heard

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)

        async def relay(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def asked() -> AsyncIterator[bytes]:
                async for message in requests:
                    self._heard.hear(method + "?", message)
                    yield message

            call = self._channel.stream_stream(method, None, None)(asked())
            try:
                async for message in call:
                    self._heard.hear(method, message)
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            except asyncio.CancelledError:
                # The benchmark has finished, or the caller has gone.
                call.cancel()

        return grpc.stream_stream_rpc_method_handler(relay)
