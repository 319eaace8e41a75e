"""The command line: `alise-scheduler run | supervise | top | explain | wait-for-engine-exit`.

It is the only module that reads settings from the environment.

Each command imports what it needs itself, so that the supervisor, which runs as long as the pod, stays small.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from alise_contract.names import CONTROL_SOCKET, REQUESTS_SOCKET

from . import logs
from .config import Settings, env_name, flag_name, load
from .errors import ConfigError
from .parent import end_with_parent
from .supervisor import HEARTBEAT_FD_ENV, RESTARTS_ENV, Heartbeat, Supervisor, child_environ, scheduler_command

_USAGE_ERROR = 2
_NOT_FOUND = 1


def parser() -> argparse.ArgumentParser:
    """The parser. Every setting is a flag of `run` and `supervise`."""
    root = argparse.ArgumentParser(prog="alise-scheduler", description="Predict, admit and rank the requests of one engine.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "Run the scheduler process."),
        ("supervise", "Run the scheduler process and restart it when it dies or hangs."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        for field, info in Settings.model_fields.items():
            command.add_argument(
                flag_name(field), dest=field, metavar="VALUE", help=f"{info.description} [{env_name(field)}]".replace("%", "%%")
            )
    top = commands.add_parser("top", help="List the requests of this pod by rank.")
    top.add_argument("--limit", type=int, default=100, help="List at most this many requests (default: 100).")
    explain = commands.add_parser("explain", help="Say why a request waits, or has waited.")
    explain.add_argument("request", metavar="REQUEST", help="The request's id: from the header x-request-id, the answer or the log.")
    for command in (top, explain):
        command.add_argument("--json", dest="as_json", action="store_true", help="Print JSON.")
        command.add_argument(flag_name("socket_dir"), dest="socket_dir", help=f"Folder of requests.sock. [{env_name('socket_dir')}]")
    wait = commands.add_parser("wait-for-engine-exit", help="For preStop: wait until the engine no longer answers on its control socket.")
    wait.add_argument("--timeout-seconds", type=float, default=600.0, help="Return after this long at the latest (default: 600).")
    wait.add_argument(flag_name("socket_dir"), dest="socket_dir", help=f"Folder of control.sock. [{env_name('socket_dir')}]")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 if there is no such request or no answer, 2 if a setting is invalid."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(parser().parse_args(given))
    command = options.pop("command")
    timeout_seconds = options.pop("timeout_seconds", None)
    try:
        settings = load(os.environ, options)
    except ConfigError as error:
        print(f"alise-scheduler: {error}", file=sys.stderr)
        return _USAGE_ERROR
    logs.set_up(settings.log_level)
    match command:
        case "run":
            from .run import run

            heartbeat = os.environ.get(HEARTBEAT_FD_ENV)
            restarts = os.environ.get(RESTARTS_ENV, "0")
            if heartbeat:
                end_with_parent()
            asyncio.run(run(settings, int(restarts) if restarts.isdigit() else 0, Heartbeat(int(heartbeat) if heartbeat else None)))
            return 0
        case "supervise":
            env = child_environ(os.environ)
            supervisor = Supervisor(scheduler_command(given[1:]), env, settings.hang_seconds, settings.restart_max_seconds)
            return supervisor.run()
        case "top" | "explain":
            from . import commands

            path = os.path.join(settings.socket_dir, REQUESTS_SOCKET)
            try:
                if command == "top":
                    print(commands.top(path, options["limit"], options["as_json"]))
                    return 0
                text, found = commands.explain(path, options["request"], options["as_json"])
            except commands.AskError as error:
                print(f"alise-scheduler {command}: {error}", file=sys.stderr)
                return _NOT_FOUND
            print(text)
            return 0 if found else _NOT_FOUND
        case _:
            from .exit_wait import wait_for_engine_exit

            gone = wait_for_engine_exit(os.path.join(settings.socket_dir, CONTROL_SOCKET), timeout_seconds)
            print(
                "the engine is gone" if gone else f"the engine still answers after {timeout_seconds} s; not waiting any longer",
                file=sys.stderr,
            )
            return 0


if __name__ == "__main__":
    sys.exit(main())
