"""What a room imports from others is what its extras in pyproject.toml install."""

import re
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The package that a name is imported from, where the two differ.
PACKAGES = {
    "google": "protobuf", "grpc": "grpcio", "grpc_health": "grpcio-health-checking", "grpc_reflection": "grpcio-reflection",
    "yaml": "pyyaml", "pydantic_core": "pydantic", "prometheus_client": "prometheus-client", "pythonjsonlogger": "python-json-logger",
}  # fmt: skip
# What vLLM itself is made of: the engine runs in its process and with its versions.
WITH_VLLM = {
    "fastapi",
    "huggingface_hub",
    "numpy",
    "opentelemetry",
    "prometheus-client",
    "safetensors",
    "starlette",
    "tokenizers",
    "torch",
    "triton",
}
# `alise_simulator --plots` on a developer's machine; no image draws.
PLOTS = {"matplotlib"}


def declared(*extras: str) -> set[str]:
    requirements = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return {re.split(r"[^\w-]", one)[0] for one in requirements}


def imported(room: str) -> set[str]:
    graph = grimp.build_graph(room, include_external_packages=True, cache_dir=None)
    others = {name for name in graph.modules if graph.is_module_squashed(name)}
    return {PACKAGES.get(name, name) for name in others if name not in sys.stdlib_module_names and name != "alise_contract"}


@pytest.mark.parametrize(
    ("room", "extras", "beside"),
    [
        pytest.param("alise_operator", ["operator"], set(), id="operator"),
        pytest.param("alise_picker", ["operator"], {"alise_operator"}, id="endpoint picker"),
        pytest.param("kubectl_alise", ["kubectl"], set(), id="kubectl plugin"),
        pytest.param("alise_scheduler", ["scheduler"], set(), id="scheduler"),
        pytest.param("alise_simulator", ["scheduler"], {*PLOTS, "alise_scheduler"}, id="simulator"),
        pytest.param("alise_engine", ["engine"], WITH_VLLM, id="engine on GPUs"),
        pytest.param("alise_engine", ["engine-cpu"], {*WITH_VLLM, "vllm"}, id="engine on CPUs"),
        pytest.param("alise_contract", [], set(), id="contract"),
    ],
)
def test_a_room_imports_what_its_extras_install(room: str, extras: list[str], beside: set[str]) -> None:
    assert sorted(imported(room) - declared(*extras) - beside) == []
