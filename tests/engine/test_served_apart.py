"""A served engine where a pod differs from a developer's machine: no compiler, other plugins in the image, and who listens where."""

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alise_engine.serve import tiny_model
from tests.engine.served import ServedEngine, serving

pytestmark = pytest.mark.engine

LISTENS = "0A"
COMPILERS = ("c++", "cc", "clang", "clang++", "g++", "gcc")
BATCHED_TOKENS = 256
LONG = "a prompt that is computed in several steps, " * 30


@dataclass(frozen=True)
class Apart:
    engine: ServedEngine
    # What every compiler that is called writes into.
    compiler_calls: Path
    # What the other plugin writes its process into.
    plugin_calls: Path


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    folder = tmp_path_factory.mktemp("apart")
    calls, plugin_calls = folder / "compilers.log", folder / "plugin.log"
    binaries, packages = folder / "bin", folder / "packages"
    for made in (binaries, packages / "theirs-1.dist-info"):
        made.mkdir(parents=True)
    for name in COMPILERS:
        compiler = binaries / name
        compiler.write_text(f'#!/bin/sh\necho "$0 $*" >> {calls}\nexit 1\n')
        compiler.chmod(0o755)
    (packages / "theirs.py").write_text(
        f"import os\ndef register():\n    with open({str(plugin_calls)!r}, 'a') as log:\n        log.write(f'{{os.getpid()}}\\n')\n"
    )
    (packages / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (packages / "theirs-1.dist-info" / "entry_points.txt").write_text("[vllm.general_plugins]\ntheirs = theirs:register\n")
    environment = {
        "PATH": f"{binaries}:/usr/bin:/bin",
        "CC": str(binaries / "cc"),
        "CXX": str(binaries / "g++"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")])),
    }
    flags = ["--served-model-name", "tiny", "--max-model-len", "2048", "--max-num-batched-tokens", str(BATCHED_TOKENS)]
    model = tiny_model.write_model(folder / "tiny")
    with serving(model, *flags, "--max-num-seqs", "4", "--alise-host-memory", "64Mi", **environment) as engine:
        yield Apart(engine, calls, plugin_calls)


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
# One for everything of a request that reaches the sampler or the model runner.
REQUESTS: list[Any] = [
    pytest.param({"logprobs": 1}, id="log-probabilities"),
    pytest.param({"logprobs": 5, "echo": True}, id="log-probabilities of the prompt too"),
    pytest.param({"prompt_logprobs": 1, "prompt": LONG}, id="log-probabilities of a prompt computed in parts"),
    pytest.param({"prompt_logprobs": 1, "prompt": LONG, "seed": 1, "temperature": 1.0}, id="the same with a seed"),
    pytest.param({"top_p": 0.5, "top_k": 5, "min_p": 0.1, "temperature": 1.0}, id="top-p, top-k and min-p"),
    pytest.param({"top_k": 5, "temperature": 1.0, "seed": 7, "logprobs": 2}, id="top-k, a seed and log-probabilities"),
    pytest.param({"frequency_penalty": 0.5, "presence_penalty": 0.5, "repetition_penalty": 1.2}, id="penalties"),
    pytest.param({"bad_words": ["a", "hello"]}, id="bad words"),
    pytest.param({"logit_bias": {"65": 100}}, id="a bias"),
    pytest.param({"allowed_token_ids": [65, 66]}, id="allowed tokens"),
    pytest.param({"stop_token_ids": [65], "min_tokens": 2}, id="a minimum of tokens"),
    pytest.param({"n": 3, "temperature": 1.0, "seed": 3}, id="several answers with a seed"),
    pytest.param({"use_beam_search": True, "n": 2}, id="beam search"),
    pytest.param({"structured_outputs": {"json": SCHEMA}}, id="a JSON schema"),
    pytest.param({"structured_outputs": {"regex": "[0-9]+"}, "logprobs": 1}, id="a regular expression"),
    pytest.param({"structured_outputs": {"choice": ["yes", "no"]}, "prompt": LONG, "seed": 1}, id="a choice"),
    pytest.param({"structured_outputs": {"grammar": 'root ::= "a" | "b"'}}, id="a grammar"),
    pytest.param({"prompt": [letter * 1500 for letter in "abcd"], "seed": 1234, "temperature": 0.8}, id="long prompts with a seed"),
]


@pytest.mark.parametrize("fields", REQUESTS)
async def test_a_request_is_answered_without_a_compiler(apart: Apart, fields: dict[str, Any]) -> None:
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 6} | fields
    async with apart.engine.http() as client:
        answer = await client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert (await client.get("/health")).status_code == 200
    assert not apart.compiler_calls.exists()


async def test_a_grammar_that_would_take_the_machine_is_refused(apart: Apart) -> None:
    body = {"model": "tiny", "prompt": "hello", "structured_outputs": {"json": {"type": "array", "minItems": 10**9}}}
    async with apart.engine.http() as client:
        answer = await client.post("/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "structured_outputs")


def test_other_plugins_of_the_image_load_in_both_processes(apart: Apart) -> None:
    processes = _session(apart.engine.process.pid)
    assert len(set(map(int, apart.plugin_calls.read_text().split())) & processes) == 2


def test_only_the_api_server_listens_beyond_loopback(apart: Apart) -> None:
    beyond = [(address, port) for address, port in _listening(_session(apart.engine.process.pid)) if not _is_loopback(address)]
    assert beyond == [("0.0.0.0", apart.engine.port)]


def test_engine_core_is_told_to_listen_on_the_loopback_interface(apart: Apart) -> None:
    # Without it the host's name decides, which is the pod's address in a pod and may be loopback here.
    environs = [Path(f"/proc/{pid}/environ").read_bytes() for pid in _session(apart.engine.process.pid)]
    assert any(b"GLOO_SOCKET_IFNAME=lo" in environ.split(b"\0") for environ in environs)


def _session(leader: int) -> set[int]:
    """The processes of the engine."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.add(int(stat.parent.name))
    return found


def _listening(pids: set[int]) -> list[tuple[str, int]]:
    """Addresses and ports on which these processes accept TCP connections."""
    held = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                held.add(os.readlink(descriptor))
            except OSError:
                continue
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return [_address(row[1]) for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in held]


def _address(text: str) -> tuple[str, int]:
    """From the kernel's notation: 32-bit words in the machine's order, in hexadecimal."""
    words, port = text.split(":")
    packed = b"".join(struct.pack("=I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed), int(port, 16)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")
