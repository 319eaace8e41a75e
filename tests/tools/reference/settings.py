"""The page of environment variables and flags, from the settings that the operator, the scheduler and the engine read them with.

`__main__.py` writes it to docs/reference/settings.md.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from alise_engine.api import variables
from alise_engine.serve.cli import command_line
from alise_engine.serve.compose import Machine, Own, compose
from alise_operator.settings import Settings as OperatorSettings
from alise_scheduler.__main__ import parser as scheduler_parser
from alise_scheduler.config import Settings as SchedulerSettings
from alise_scheduler.config import env_name, flag_name
from alise_scheduler.supervisor import HEARTBEAT_FD_ENV, RESTARTS_ENV
from tests.tools.reference.page import code, page, prose, sentence, table

# Why `alise-engine serve` sets a variable.
LAUNCHER: Final[Mapping[str, str]] = {
    "ALISE_ADMIT_DEADLINE_MS": "The steps of the model and the scheduler share cores.",
    "ALISE_SOCKET_DIR": "The folder of the pod's sockets, for every process of the engine.",
    "GLOO_SOCKET_IFNAME": "Only the API server listens beyond loopback.",
    "HF_HUB_OFFLINE": "The model is a local folder, so no hub needs to be asked.",
    "NCCL_SOCKET_IFNAME": "Only the API server listens beyond loopback.",
    "OMP_NUM_THREADS": "All cores but two: the API server and EngineCore need one each.",
    "TORCHDYNAMO_DISABLE": "Nothing is compiled at run time; `--no-enforce-eager` leaves the variable unset.",
    "TORCH_COMPILE_DISABLE": "Nothing is compiled at run time; `--no-enforce-eager` leaves the variable unset.",
    "VLLM_CPU_KVCACHE_SPACE": "Size of the KV cache in GiB.",
    "VLLM_CPU_OMP_THREADS_BIND": "Threads are not bound to cores.",
    "VLLM_HOST_IP": "Only the API server listens beyond loopback.",
    "VLLM_PLUGINS": "vLLM loads endpoint plugins only by name. Your list is kept, and `alise` is added to it.",
    "VLLM_USE_V2_MODEL_RUNNER": "Requests resume exactly with model runner V1 only. Another value is refused.",
}
# Set whatever the environment says, or added to it.
ALWAYS: Final = frozenset({"ALISE_SOCKET_DIR", "VLLM_PLUGINS", "VLLM_USE_V2_MODEL_RUNNER"})
# What one process of alise says to another one.
INTERNAL: Final[Mapping[str, str]] = {
    HEARTBEAT_FD_ENV: "The file descriptor on which the scheduler process sends its heartbeat to the supervisor.",
    RESTARTS_ENV: "How often the supervisor has restarted the scheduler process.",
}
# The default and the variable, which have columns of their own.
_DEFAULT_IN_HELP: Final = re.compile(r" \(default:? (?:%\(default\)s|[^)]*)\)| \[[A-Z_]+\]")
# A machine whose number of cores shows in the value.
_CORES: Final = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: an environment variable, a flag, or both (empty where there is none)."""

    variable: str
    flag: str
    default: str
    allowed: str
    meaning: str


def operator() -> list[Setting]:
    return [
        Setting(str(info.alias), "", _default(info.default), _bounds(info), info.description or "")
        for info in OperatorSettings.model_fields.values()
    ]


def scheduler() -> list[Setting]:
    return [
        Setting(env_name(name), flag_name(name), _default(info.default), _bounds(info), info.description or "")
        for name, info in SchedulerSettings.model_fields.items()
    ]


def api_server() -> list[Setting]:
    found = (one for one in vars(variables).values() if isinstance(one, variables.Variable))
    return [Setting(one.name, "", _default(one.default), one.expected, one.meaning) for one in found]


def commands(root: argparse.ArgumentParser) -> dict[str, list[Setting]]:
    """Returns the flags of each command of a program, by `program command`."""
    (choices,) = (action.choices for action in root._actions if isinstance(action, argparse._SubParsersAction))
    return {f"{root.prog} {name}": list(_flags(command)) for name, command in choices.items()}


def _flags(command: argparse.ArgumentParser) -> Iterator[Setting]:
    for action in command._actions:
        if action.option_strings and action.dest != "help":
            allowed = ", ".join(code(choice) for choice in action.choices or ())
            yield Setting("", action.option_strings[-1], _default(action.default), allowed, _DEFAULT_IN_HELP.sub("", action.help or ""))


def launched() -> dict[str, tuple[str, str]]:
    """Returns the variables that `alise-engine serve` sets, with their values on a CPU and on a GPU; empty: it does not set it there."""
    cpu, cuda = (
        compose(("/models/tiny",), {}, Own(), Machine(device, _CORES, model_is_local=True), {}).environ for device in ("cpu", "cuda")
    )
    return {name: (_cores(name, cpu.get(name, "")), _cores(name, cuda.get(name, ""))) for name in sorted({*cpu, *cuda})}


def _cores(name: str, value: str) -> str:
    return "cores - 2" if name == "OMP_NUM_THREADS" and value else value


def settings() -> dict[str, list[Setting]]:
    """Returns all settings by the heading of their section."""
    supervised = {"alise-scheduler run", "alise-scheduler supervise"}
    return {
        "Operator": operator(),
        "Scheduler": scheduler(),
        **{name: found for name, found in commands(scheduler_parser()).items() if name not in supervised},
        "Engine: API server": api_server(),
        **commands(command_line()),
    }


_ABOUT: Final = {
    "Operator": "Environment variables of the container `operator`. `KUBECONFIG` is used outside a cluster.",
    "Scheduler": (
        "Environment variables of the container `scheduler`, and flags of `alise-scheduler run` and `alise-scheduler supervise`. A flag "
        "wins over its variable. The operator sets most of them from `spec.scheduling`, `spec.admission`, `spec.kvOffload` and "
        "`spec.predictor`."
    ),
    "alise-scheduler top": "Lists the requests of the pod by rank: see [Why did my request wait?](../how-to/why-did-my-request-wait.md).",
    "alise-scheduler explain": (
        "Says why a request waits, or has waited. Its argument is the id of the request. The exit status is 1 if the pod does not know it."
    ),
    "alise-scheduler wait-for-engine-exit": "The preStop hook of the container `scheduler`.",
    "Engine: API server": "Environment variables of the container `engine`. The operator sets them from `spec.admission` and `spec.auth`.",
    "alise-engine serve": "All other flags are those of `vllm serve`.",
    "alise-engine drain": "The preStop hook of the container `engine`.",
    "alise-engine status": "Prints the status that the operator polls, as JSON.",
}


def render() -> str:
    """Returns the page: a table for each program, then what programs set themselves."""
    return page(
        "Settings and flags",
        "the settings of each room",
        prose(
            "Most of these settings follow from the fields of an [AliseEngine](aliseengine.md), and the operator writes them into the "
            "pods. You need this page to configure the operator itself, or to run the programs without it."
        ),
        *(["## " + name, "", *prose(_ABOUT[name]), "", *_table(found)] for name, found in settings().items()),
        [
            "## Variables that `alise-engine serve` sets",
            "",
            *prose("It sets these unless the environment has them. Those in **bold** are set in any case."),
            "",
            *table(("variable", "on a CPU", "on a GPU", "reason"), map(_launched, launched().items())),
        ],
        [
            "## Internal variables",
            "",
            *prose("alise sets these for its own processes. Do not set them."),
            "",
            *table(("variable", "meaning"), ((code(name), meaning) for name, meaning in INTERNAL.items())),
        ],
    )


def _launched(item: tuple[str, tuple[str, str]]) -> tuple[str, ...]:
    name, values = item
    return f"**{code(name)}**" if name in ALWAYS else code(name), *map(code, values), LAUNCHER[name]


def _table(found: Iterable[Setting]) -> list[str]:
    """Returns a table without the columns that would be empty."""
    found = list(found)
    columns = {
        "variable": [code(one.variable) for one in found],
        "flag": [code(one.flag) for one in found],
        "default": [code(one.default) for one in found],
        "allowed": [one.allowed for one in found],
        "description": [sentence(one.meaning) for one in found],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return table(list(kept), zip(*kept.values(), strict=True))


def _default(value: object) -> str:
    match value:
        case None | "" | () | []:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case dict():
            return json.dumps(value) if value else ""
        case _:
            return str(value)


def _bounds(info: FieldInfo) -> str:
    """Returns what is allowed besides the type."""
    kind: Any = info.annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return ", ".join(code(choice) for choice in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(
        f"{sign} {getattr(one, name):,g}" for one in info.metadata for name, sign in signs.items() if getattr(one, name, None) is not None
    )
