"""`alise-engine serve | drain | status`: the container's command, the preStop hook, and what `kubectl alise` runs in a pod.

`serve` reads the command line, the environment, the cgroup and the plugins that are installed, writes the environment and runs vLLM in
this process; `compose` decides with which flags. `drain` and `status` call the engine on control.sock and print what it answers.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from alise_contract.names import CONTRACT_VERSION, CONTROL_SOCKET, SOCKET_DIR, SOCKET_DIR_ENV
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc

from ..api.status import as_json
from ..compat import patches
from ..errors import ConfigError
from ..wire import last_words
from . import starting
from .compose import AUTO_HOST_MEMORY, KV_CODECS, PLUGIN_GROUPS, WATCHED, Device, Machine, Own, compose
from .plugin import engine_died

# Past the drain's own timeout: the answer's way back.
RPC_MARGIN_SECONDS: Final = 10.0
STATUS_SECONDS: Final = 5.0
EPILOG: Final = "Every other flag is vLLM's own: see `vllm serve --help=all`."


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line()
    own, rest = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    if own.command == "serve":
        return _serve(own, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    control = Path(own.alise_socket_dir or os.environ.get(SOCKET_DIR_ENV) or SOCKET_DIR) / CONTROL_SOCKET
    if own.command == "drain" and not _listens(control):
        print(f"no engine listens on {control}: nothing to drain")
        return 0
    if own.command == "drain":
        return asyncio.run(_drain(control, own.accept_seconds, own.timeout_seconds))
    return asyncio.run(_status(control))


def command_line() -> argparse.ArgumentParser:
    # No abbreviations: what we do not know in full is vLLM's.
    parser = argparse.ArgumentParser(prog="alise-engine", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    socket_dir = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    socket_dir.add_argument(
        "--alise-socket-dir", metavar="DIR", help=f"Folder of the pod's sockets. Without it: ${SOCKET_DIR_ENV}, else {SOCKET_DIR}."
    )

    serve = commands.add_parser(
        "serve", parents=[socket_dir], allow_abbrev=False, help="Run vLLM's OpenAI server with alise.", epilog=EPILOG
    )
    serve.usage = "alise-engine serve MODEL [options] [any flag of vllm serve]"
    serve.add_argument(
        "--alise-host-memory",
        default=AUTO_HOST_MEMORY,
        metavar="BYTES",
        help="Size of the host store for KV, as a quantity such as 2Gi. 0: none; auto: as large as the KV cache on the device, and at most "
        "a quarter of the container's memory (default %(default)s).",
    )
    serve.add_argument("--alise-host-memory-at-most", metavar="BYTES", help="Largest size of a host store whose size is auto.")
    serve.add_argument("--alise-kv-codec", default="auto", choices=KV_CODECS, help="Codec of KV in the host store (default %(default)s).")

    drain = commands.add_parser("drain", parents=[socket_dir], help="Refuse new requests and wait until the open ones have finished.")
    drain.add_argument(
        "--timeout-seconds", type=_seconds, default=120.0, metavar="S", help="Stop waiting after this many seconds (default %(default)s)."
    )
    drain.add_argument(
        "--accept-seconds",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="Keep accepting requests for this many seconds (default %(default)s).",
    )

    commands.add_parser("status", parents=[socket_dir], help="Print the status that the operator polls, as JSON.")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return seconds


# --- serve ------------------------------------------------------------------------------------------------------------------------


def _serve(own: argparse.Namespace, argv: list[str]) -> int:
    starting.end_on_signals()
    device = _device()
    model = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    machine = Machine(
        device,
        os.cpu_count() or 1,
        model is not None and model.is_dir(),
        memory_bytes(),
        _installed_plugins(),
        model is not None and model.is_absolute() and not model.exists(),
    )
    flags = Own(own.alise_host_memory, own.alise_host_memory_at_most, own.alise_kv_codec, own.alise_socket_dir)
    environ = dict(os.environ)
    try:
        # Once for the environment, which vLLM reads while its parser is built; once more with what the parser found.
        first = compose(argv, {}, flags, machine, environ)
        os.environ.update(first.environ)
        composed = compose(argv, given_flags(argv), flags, machine, environ)
    except ConfigError as error:
        print(f"alise-engine: {error}", file=sys.stderr)
        return 2
    for name in first.environ.keys() - composed.environ.keys() - environ.keys():
        del os.environ[name]
    os.environ.update(composed.environ)
    from vllm.entrypoints.cli.main import main as vllm_main

    patches.keep_signal_handlers()
    patches.limit_grammars()
    patches.check_configuration()
    # vLLM's own entry point, so that every sub-step of `vllm serve` happens as it does there.
    sys.argv = ["vllm", *composed.argv]
    last_words.forget()
    try:
        vllm_main()
    except ConfigError as error:
        print(f"alise-engine: {error}", file=sys.stderr)
        return 2
    if engine_died():
        print(f"alise-engine: {last_words.last_words()}", file=sys.stderr)
        return 1
    return 0


def _device() -> Device:
    """Returns the device of the installed vLLM; the CPU build is recognized by its version."""
    return "cpu" if "cpu" in importlib.metadata.version("vllm") else "cuda"


def memory_bytes(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that the container may use: its limit, else the machine's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(machine, int((cgroups / name).read_text()))
        except (OSError, ValueError):
            # Another version of cgroups, or `max`: no limit.
            continue
    return machine


def _installed_plugins() -> tuple[str, ...]:
    """Returns the names of the plugins that vLLM loads by default."""
    return tuple(found.name for group in PLUGIN_GROUPS for found in importlib.metadata.entry_points(group=group))


def given_flags(argv: Sequence[str]) -> Mapping[str, Any]:
    """The flags that the user gave and that `compose` needs, as vLLM's own parser reads them. Exits as vLLM does on bad ones."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="alise-engine")
    serve = ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    absent = object()
    serve.set_defaults(**dict.fromkeys(WATCHED, absent))
    parsed = vars(parser.parse_args(["serve", *argv]))
    return {dest: parsed[dest] for dest in WATCHED if parsed.get(dest, absent) is not absent}


# --- drain and status -------------------------------------------------------------------------------------------------------------


def _listens(socket_path: Path) -> bool:
    """Whether there is an engine behind the socket. One that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # Whatever it is, the call itself will say.
            pass
        return True


async def _drain(control: Path, accept_seconds: float, timeout_seconds: float) -> int:
    request = pb.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=accept_seconds, timeout_seconds=timeout_seconds)
    async with grpc.aio.insecure_channel(f"unix:{control}") as channel:
        try:
            drained = await _stub(channel).Drain(request, timeout=timeout_seconds + RPC_MARGIN_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _failed(control, error)
    if drained.finished:
        print(f"drained after {drained.waited_seconds:.1f} s")
        return 0
    print(f"{drained.open_requests} requests are still open after {drained.waited_seconds:.1f} s", file=sys.stderr)
    return 1


async def _status(control: Path) -> int:
    async with grpc.aio.insecure_channel(f"unix:{control}") as channel:
        try:
            report = await _stub(channel).Status(pb.StatusRequest(), timeout=STATUS_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _failed(control, error)
    print(json.dumps(as_json(report), indent=2))
    return 0


def _stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.EngineControlStub(channel)


def _failed(control: Path, error: grpc.aio.AioRpcError) -> int:
    print(f"alise-engine: the engine on {control} did not answer: {error.code().name}: {error.details()}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
