"""Every channel by which a client might choose its own rank, tried on a served pod whose slots are taken and whose queue is full.

Before each forgery the same client sends the honest request that it was derived from, and takes it back. Counted as forged is an engine
request with a job, a hint or a priority that the scheduler did not give it, a question to the scheduler with a tenant or a class that the
client does not have, and a level that beats the honest twin's. The forger knows more than any client can: the hint of a request that
waits, and a stamp for it that the pod's own key signed. `hostile.py` runs it.
"""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from alise_contract.names import OBJECTIVE_HEADERS, PRIORITY_HEADER, TENANT_HEADERS, pack_priority, unpack_priority
from alise_contract.pod_key import pod_key
from alise_engine.wire.stamp import NEUTRAL_PRIORITY, Stamp, stamp_key, stamped_args
from alise_scheduler.core.lengths import QUANTILES
from tests.bench.harness import Row
from tests.bench.hostile_served import GOLD, Heard, Pod, Setting, relayed, serving
from tests.bench.hostile_wire import NOTHING, Answer, Framing, exchange, message
from tests.surface.row import BATCH, CHAT, COHERE, COMPLETIONS, DECISIONS, GENERATE, HELLO, INVOCATIONS, MESSAGES, RESPONSES, SCORING

SETTINGS: Final = (
    Setting(slots=2, classes=True, admit_deadline_ms=5_000),
    Setting(slots=2, keyed=True, classes=True, admit_deadline_ms=5_000),
)
QUEUE: Final = 5
# Long enough to be seen by the poll of the engine, and forgotten as soon as it was.
TOKENS: Final = 60
QUEUED_TOKENS: Final = 1_800
BEST: Final = pack_priority(-128, 0)
# The previous format of hints, with which the scheduler could be misled.
_OLD_HINT: Final = struct.Struct(f"<2sB{QUANTILES}ff7B3Q")
_SECONDS: Final = 8.0
_START_SECONDS: Final = 60.0
# Levels by which two like requests may differ: the queue has moved on between them. Four are a factor of two, a class of weight 16 is
# sixteen.
DRIFT_LEVELS: Final = 2
# Three polls of the engine: what came around the middleware shows by then.
_SETTLE_SECONDS: Final = 0.15
_EVERY_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Loot:
    """A waiting request of another client. No client can know its hint or its stamp."""

    job_id: str
    hint: str
    stamp: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Channel:
    """One way to try. `honest` is the request that the forgery was derived from."""

    id: str
    path: str
    honest: Any
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    # Where the twin goes; the forgery's path without one.
    honest_path: str = ""
    content_type: str = "application/json"
    framing: Framing = Framing.LENGTH
    # The forger's own key is not sent.
    without_key: bool = False
    upgrade: bool = False


ENDLESS: Final = {"ignore_eos": True, "temperature": 0}
BODIES: Final[Mapping[str, Any]] = {
    COMPLETIONS: {"model": "tiny", "prompt": "The cat", "max_tokens": TOKENS, **ENDLESS},
    CHAT: {"model": "tiny", "messages": HELLO, "max_tokens": TOKENS, **ENDLESS},
    RESPONSES: {"model": "tiny", "input": "hello", "max_output_tokens": TOKENS, **ENDLESS},
    MESSAGES: {"model": "tiny", "messages": HELLO, "max_tokens": TOKENS, **ENDLESS},
    BATCH: {"model": "tiny", "messages": [HELLO, HELLO], "max_tokens": TOKENS, **ENDLESS},
    INVOCATIONS: {"model": "tiny", "messages": HELLO, "max_tokens": TOKENS, **ENDLESS},
    COHERE: {"model": "tiny", "messages": HELLO, "max_tokens": TOKENS, **ENDLESS},
    GENERATE: {"model": "tiny", "token_ids": [72, 105], "sampling_params": {"max_tokens": TOKENS, **ENDLESS}},
    SCORING: {"model": "tiny", "query": "a", "items": ["b", "c"], "label_token_ids": [65, 66]},
    DECISIONS: {
        "model": "tiny",
        "state": "the sky is blue",
        "questions": {"q": {"type": "choice", "instructions": "Which?", "criteria": {"a": "the first", "b": "the second"}}},
    },
}


def old_hint(tenant: str, klass: str) -> str:
    """A hint as it was before hints were signed: of the shortest job there is, with the greatest weight and a right checksum."""
    fixed = _OLD_HINT.pack(b"AL", 1, *[1.0] * QUANTILES, 64.0, *[0] * 7, 0, 0, 0)
    body = fixed + b"".join(bytes([len(text)]) + text.encode() for text in (klass, tenant))
    return base64.b64encode(body + struct.pack("<I", zlib.crc32(body))).decode()


def channels(loot: Loot) -> Iterator[Channel]:
    """Yield every channel, in the order in which they are tried."""
    own = {"alise_job": "mine", "alise_hint": old_hint("honest", GOLD), "alise_stamp": f"{BEST}.{'00' * 16}"}
    stolen = {"alise_job": loot.job_id, "alise_hint": loot.hint, "alise_stamp": loot.stamp}
    everything = {"priority": BEST, "vllm_xargs": stolen, "extra_args": stolen, "kv_transfer_params": stolen}
    headers = {PRIORITY_HEADER: str(BEST), **dict.fromkeys(TENANT_HEADERS, "honest"), **dict.fromkeys(OBJECTIVE_HEADERS, GOLD)}
    for path in BODIES:
        yield _channel(f"everything at once on {path}", path, everything, headers=headers)
    # What a body says.
    yield _channel("the body's priority", COMPLETIONS, {"priority": BEST})
    yield _channel("a priority beyond 64 bits", COMPLETIONS, {"priority": -(1 << 62)})
    yield _channel("a priority that is text", CHAT, {"priority": str(BEST)})
    yield _channel("a job id of its own", COMPLETIONS, {"vllm_xargs": {"alise_job": "mine"}})
    yield _channel(
        "a hint with the checksum of before", COMPLETIONS, {"vllm_xargs": {"alise_job": "mine", "alise_hint": own["alise_hint"]}}
    )
    yield _channel("a stamp with a signature of zeros", COMPLETIONS, {"vllm_xargs": own})
    yield _channel("a stamp signed with another key", COMPLETIONS, {"vllm_xargs": _signed(b"k" * 32)})
    yield _channel("the job id of a request that waits", COMPLETIONS, {"vllm_xargs": {"alise_job": loot.job_id}})
    yield _channel("the hint of a request that waits", CHAT, {"vllm_xargs": {"alise_job": loot.job_id, "alise_hint": loot.hint}})
    yield _channel("another job's stamp, replayed", COMPLETIONS, {"vllm_xargs": stolen})
    yield _channel("another job's stamp, replayed in a chat", CHAT, {"vllm_xargs": stolen})
    yield _channel("stamps as lists and numbers", CHAT, {"vllm_xargs": {"alise_job": ["mine"], "alise_hint": [1, 2], "alise_stamp": 7}})
    generate = BODIES[GENERATE]["sampling_params"]
    yield _channel("extra_args of token ids", GENERATE, {"sampling_params": {**generate, "extra_args": stolen}, "priority": BEST})
    yield _channel("KV transfer parameters", COMPLETIONS, {"kv_transfer_params": {**stolen, "priority": BEST}})
    yield _channel(
        "the id of a request that waits", COMPLETIONS, {"request_id": loot.request_id}, headers={"x-request-id": loot.request_id}
    )
    yield _channel("a response in the background", RESPONSES, {"background": True, "store": True, **everything}, headers=headers)
    yield _channel("a response to nothing", RESPONSES, {"input": [], "instructions": "hi", **everything})
    yield _channel("messages of a chat under another key", RESPONSES, {"input": HELLO, "metadata": {"priority": str(BEST)}, **everything})
    yield _channel("eight samples", COMPLETIONS, {"n": 8, "temperature": 1, **everything})
    # What the middleware cannot describe, or reads otherwise than vLLM.
    yield _channel("a prompt of floats", COMPLETIONS, {"prompt": [72.0, 105.0], **everything})
    yield _channel("a prompt of text and numbers", COMPLETIONS, {"prompt": ["72", 105], **everything})
    yield _channel("a prompt of prompts with a tenant", COMPLETIONS, {"prompt": [[72, 105], "hi"], **everything})
    plain = BODIES[COMPLETIONS]
    twice = json.dumps({**plain, "priority": 0})[:-1] + f', "priority": {BEST}, "vllm_xargs": {json.dumps(stolen)}}}'
    yield _raw("keys twice", twice.encode())
    yield _raw("JSON in UTF-16", json.dumps({**plain, **everything}).encode("utf-16"))
    yield _raw("JSON in UTF-32", json.dumps({**plain, **everything}).encode("utf-32"))
    yield _raw("JSON behind a byte order mark", json.dumps({**plain, **everything}).encode("utf-8-sig"))
    yield _raw("a body over the limit", json.dumps({**plain, **everything}).encode() + b" " * (33 << 20))
    yield _raw("a body of a megabyte", json.dumps({**plain, **everything}).encode() + b" " * (1 << 20))
    whole = json.dumps({**plain, **everything}).encode()
    yield _raw("a chunked body", whole, framing=Framing.CHUNKED)
    yield _raw("a body framed in two ways", whole, framing=Framing.BOTH)
    yield _raw("JSON that says it is text", whole, content_type="text/plain")
    yield _raw("JSON that says it is a form", whole, content_type="multipart/form-data; boundary=x")
    # Paths.
    yield _raw("a slash at the end of the path", whole, path=COMPLETIONS + "/")
    yield _raw("a path with two slashes", whole, path="//v1//completions")
    yield _raw("an escaped path", whole, path="/v1/%63ompletions")
    yield _raw("a whole URL for a path", whole, path="http://127.0.0.1" + COMPLETIONS)
    yield _raw("a path with a query", whole, path=COMPLETIONS + f"?priority={BEST}&alise_job=mine")
    # Headers.
    yield _channel("the priority header", COMPLETIONS, {}, headers={PRIORITY_HEADER: str(BEST)})
    yield _channel("the priority header in capitals", CHAT, {}, headers={PRIORITY_HEADER.upper(): str(BEST)})
    yield _channel("the priority header with underscores", CHAT, {}, headers={PRIORITY_HEADER.replace("-", "_"): str(BEST)})
    for name in TENANT_HEADERS:
        yield _channel(f"another tenant in {name}", CHAT, {}, headers={name: "honest"})
        yield _channel(f"a fresh tenant in {name}", CHAT, {}, headers={name: "tenant-not-seen-before"})
    for name in OBJECTIVE_HEADERS:
        yield _channel(f"a class in {name}", CHAT, {}, headers={name: GOLD})
    for number in range(3):
        yield replace(
            _channel(f"random bearer token {number}", CHAT, {}, headers={"authorization": f"Bearer {number:032x}"}), without_key=True
        )
    yield replace(_channel("a random key of Anthropic's clients", MESSAGES, {}, headers={"x-api-key": "sk-ant-1"}), without_key=True)
    yield replace(_channel("no key", CHAT, everything, headers=headers), without_key=True)
    upgrade = {
        "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }  # fmt: skip
    yield Channel("a realtime websocket", "/v1/realtime", BODIES[CHAT], b"", {**headers, **upgrade}, CHAT, upgrade=True)


def _signed(key: bytes) -> dict[str, Any]:
    return stamped_args(None, Stamp("mine", BEST, old_hint("honest", GOLD)), stamp_key(key))


def _channel(id: str, path: str, forged: Mapping[str, Any], headers: Mapping[str, str] = {}) -> Channel:
    return Channel(id, path, BODIES[path], json.dumps({**BODIES[path], **forged}).encode(), headers)


def _raw(id: str, content: bytes, path: str = COMPLETIONS, **more: Any) -> Channel:
    return Channel(id, path, BODIES[COMPLETIONS], content, honest_path=COMPLETIONS, **more)


# --- trying -----------------------------------------------------------------------------------------------------------------------


def measure(model: Path, quick: bool, settings: Sequence[Setting] = SETTINGS) -> Iterator[Row]:
    """Rows of kind channel, one per channel and setting; `quick`: with keys only the channels that are about who asks."""
    for setting in settings:
        with serving(model, setting, apart=True) as pod:
            yield from asyncio.run(_rows(pod, setting, quick and setting.keyed))


async def _rows(pod: Pod, setting: Setting, only_callers: bool) -> list[Row]:
    rows = []
    async with relayed(pod) as heard, asyncio.timeout(600):
        await _until(lambda: heard.watched, _START_SECONDS)
        async with _queue(pod, setting, heard) as top_up:
            await top_up()
            for channel in list(channels(_loot(pod, heard))):
                if only_callers and not (channel.headers or channel.without_key):
                    continue
                await top_up()
                rows.append({"kind": "channel", "id": channel.id, "setting": setting.name, **await _try(pod, setting, heard, channel)})
    return rows


def _loot(pod: Pod, heard: Heard) -> Loot:
    """The loot of the newest request that waits, with a stamp that the pod's key signs for the best rank."""
    job_id = heard.admitted()[-1].job_id
    hint = base64.b64encode(heard.given[job_id].admitted.hint).decode()
    signed = stamped_args(None, Stamp(job_id, BEST, hint), stamp_key(pod_key(pod.engine_sockets)))
    request_id = next((rows[-1].request_id for rows in heard.rows.values() if rows[-1].job_id == job_id), "")
    return Loot(job_id, hint, str(signed["alise_stamp"]), request_id)


@asynccontextmanager
async def _queue(pod: Pod, setting: Setting, heard: Heard) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Honest requests that take all slots and wait for more; what is yielded fills the queue up again."""
    body = json.dumps({**BODIES[COMPLETIONS], "max_tokens": QUEUED_TOKENS}).encode()
    data = message("POST", COMPLETIONS, {"content-type": "application/json", **setting.headers("honest")}, body)
    tasks: set[asyncio.Task[Answer]] = set()

    async def top_up() -> None:
        ended = {task for task in tasks if task.done()}
        tasks.difference_update(ended)
        while len(tasks) < QUEUE:
            known = {ask.job_id for ask in heard.admitted()}
            tasks.add(asyncio.create_task(exchange(pod.port, data, 300.0)))
            await _until(partial(_another, heard, known), _START_SECONDS)

    try:
        yield top_up
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _try(pod: Pod, setting: Setting, heard: Heard, channel: Channel) -> Row:
    """Send the twin, then the forgery, and return what became of both."""
    key = setting.headers("hostile")
    base = {"content-type": "application/json", **key}
    twin_data = message("POST", channel.honest_path or channel.path, base, json.dumps(channel.honest).encode())
    twin, twin_jobs, _, twin_entered = await _send(pod, heard, twin_data, settle_seconds=0.0)
    await _take_back(heard, twin, twin_jobs)
    given = {} if channel.without_key else key
    headers = {"content-type": channel.content_type, **given, **channel.headers}
    data = message("GET" if channel.upgrade else "POST", channel.path, headers, channel.content, channel.framing)
    forger, jobs, answer, entered = await _send(pod, heard, data, others=frozenset(twin_jobs))
    if answer.status in (307, 308) and "location" in answer.headers:
        path = answer.headers["location"].removeprefix(pod.url).removeprefix("http://127.0.0.1")
        await _take_back(heard, forger, jobs)
        data = message("POST", path, headers, channel.content, channel.framing)
        forger, jobs, answer, entered = await _send(pod, heard, data, others=frozenset(twin_jobs))
    await _take_back(heard, forger, jobs)
    return {
        "status": answer.status,
        "entitled": "hostile" if setting.keyed else "",
        "asks": [{"tenant": ask.tenant, "klass": ask.objective} for ask in heard.admitted() if ask.job_id in jobs],
        "levels": _levels(heard, jobs),
        "twin_levels": _levels(heard, twin_jobs),
        "twin_entered": len(twin_entered),
        "entered": entered,
    }


async def _send(
    pod: Pod, heard: Heard, data: bytes, settle_seconds: float = _SETTLE_SECONDS, others: frozenset[str] = frozenset()
) -> tuple["asyncio.Task[Answer]", set[str], Answer, list[Row]]:
    """The request on its way, its jobs, its answer if there is one already, and what of it the engine has, all once the engine has it.

    Engine requests of the jobs in `others` may still come.
    """
    asked, known = len(heard.admitted()), set(heard.rows) | set(heard.finished)
    jobs_before = {ask.job_id for ask in heard.admitted()}
    task = asyncio.create_task(exchange(pod.port, data, _SECONDS))

    def there() -> bool:
        new = heard.admitted()[asked:]
        return task.done() or (bool(new) and all(_entered(heard, ask.job_id) for ask in new))

    await _until(there, _SECONDS)
    await asyncio.sleep(settle_seconds)
    jobs = {ask.job_id for ask in heard.admitted()[asked:]}
    entered = []
    for request_id, rows in heard.rows.items():
        if request_id in known or rows[0].job_id in others:
            continue
        if rows[0].job_id in jobs_before:
            # A new engine request of a job of another client.
            entered.append({"job": "of another request", "hint": True, "priority": rows[-1].priority, "allowed": False})
        else:
            entered.append(_entry(heard, jobs, rows))
    for request_id, end in heard.finished.items():
        # It came and went between two polls.
        if request_id not in known and request_id not in heard.rows and end.job_id not in jobs | others:
            entered.append({"job": "of another request" if end.job_id else "none", "hint": True, "priority": 0, "allowed": True})
    return task, jobs, task.result() if task.done() else NOTHING, entered


def _entry(heard: Heard, jobs: set[str], rows: Sequence[Any]) -> Row:
    job_id = rows[0].job_id
    answer = heard.given.get(job_id)
    allowed = heard.allowed(job_id)
    if not allowed or rows[0].request_id in heard.unplanned:
        allowed = allowed | {NEUTRAL_PRIORITY}
    foreign = [row.priority for row in rows if row.priority not in allowed]
    return {
        "job": "its own" if job_id in jobs else "made up" if job_id else "none",
        "hint": answer is None or rows[0].hint == answer.admitted.hint,
        "priority": foreign[0] if foreign else rows[-1].priority,
        "allowed": not foreign,
    }


def _levels(heard: Heard, jobs: set[str]) -> list[int]:
    """The levels that admission gave."""
    answers = [heard.given[job_id] for job_id in jobs if job_id in heard.given]
    return sorted(unpack_priority(answer.admitted.priority)[0] for answer in answers if answer.WhichOneof("decision") == "admitted")


def _entered(heard: Heard, job_id: str) -> bool:
    """Whether the engine has reported a job, or the scheduler has refused it."""
    answer = heard.given.get(job_id)
    if answer is not None and answer.WhichOneof("decision") == "rejected":
        return True
    return any(rows[0].job_id == job_id for rows in heard.rows.values()) or any(end.job_id == job_id for end in heard.finished.values())


def _another(heard: Heard, known: Set[str]) -> bool:
    """Whether the engine has a job besides these."""
    return any(_entered(heard, ask.job_id) for ask in heard.admitted() if ask.job_id not in known)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, or for its time to be over."""
    ends = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110 it is about other processes
        await asyncio.sleep(_EVERY_SECONDS)


async def _take_back(heard: Heard, task: "asyncio.Task[Answer]", jobs: Set[str]) -> None:
    """Give a request up, and wait until the engine has forgotten it: what the same client has in the queue counts for its next one."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    def forgotten() -> bool:
        return all(request_id in heard.finished for request_id, rows in heard.rows.items() if rows[0].job_id in jobs)

    await _until(forgotten, _SECONDS)


# --- judging ----------------------------------------------------------------------------------------------------------------------


def forged(row: Row) -> str:
    """Say what a channel's request got that it should not have; '' for nothing."""
    for ask in row["asks"]:
        if ask["tenant"] != row["entitled"]:
            return f"asked for as tenant {ask['tenant']!r}"
        if ask["klass"]:
            return f"asked for as class {ask['klass']!r}"
    for entry in row["entered"]:
        if entry["job"] != "its own":
            return f"an engine request whose job is {entry['job']}"
        if not entry["hint"]:
            return "a hint that the scheduler did not give"
        if not entry["allowed"]:
            return f"priority {entry['priority']}, which the scheduler did not give"
    if row["levels"] and row["twin_levels"] and row["levels"][0] < row["twin_levels"][0] - DRIFT_LEVELS:
        return f"level {row['levels'][0]}, where the honest twin has {row['twin_levels'][0]}"
    return ""
