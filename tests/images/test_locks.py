"""The locks: complete, with checksums, and of the same versions as what was tested. And the digests of base images."""

import re
import shutil
from pathlib import Path

import pytest

from tests.tools import base_digests
from tests.tools.base_digests import Unknown
from tests.tools.lock import EVERYTHING, LOCKS, ROOT, Lock, command, pins
from tests.tools.sbom_components import locked

every_lock = pytest.mark.parametrize("lock", [EVERYTHING, *LOCKS], ids=lambda lock: lock.path)
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


def entries(lock: Lock) -> list[str]:
    """The lock's requirements, one string each, without comments."""
    text = (ROOT / lock.path).read_text(encoding="utf-8").removeprefix(lock.heading)
    return text.replace("\\\n", "").splitlines()


@every_lock
def test_every_package_is_pinned_and_has_checksums(lock: Lock) -> None:
    assert [
        entry for entry in entries(lock) if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==\S+(\s+--hash=sha256:[0-9a-f]{64})+", entry)
    ] == []


@every_lock
def test_a_lock_says_what_it_holds_takes_wheels_alone_and_names_no_place(lock: Lock) -> None:
    text = (ROOT / lock.path).read_text(encoding="utf-8")
    assert text.startswith(lock.heading)
    assert lock.heading.endswith("\n--only-binary :all:\n")
    assert "://" not in text


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if not lock.apart], ids=lambda lock: lock.path)
def test_a_role_has_the_versions_and_checksums_that_were_tested(lock: Lock) -> None:
    tested, role = (locked((ROOT / one.path).read_text(encoding="utf-8")) for one in (EVERYTHING, lock))
    assert {entry: set(digests) for entry, digests in role.items()} == {entry: set(tested.get(entry, ())) for entry in role}


def test_torch_may_be_the_build_of_either_architecture() -> None:
    """PyTorch's own index has one file for each; a machine that makes the lock may see only one."""
    ((_, digests),) = [item for item in locked((ROOT / EVERYTHING.path).read_text()).items() if item[0][0] == "torch"]
    assert len(digests) >= 2


def test_checksums_are_no_part_of_a_pin() -> None:
    assert pins(f"# a comment\na[b]==1.0 \\\n    --hash={DIGEST}\nc==2\n") == ["a[b]==1.0", "c==2"]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({}, [], id="versions stay"),
        pytest.param({"UPGRADE": "1"}, ["--upgrade"], id="the newest on request"),
        pytest.param({"PIP_FIND_LINKS": "/wheels"}, ["--find-links", "/wheels"], id="where pip finds more packages"),
    ],
)
def test_how_a_lock_is_resolved(environ: dict[str, str], words: list[str]) -> None:
    made = command(LOCKS[0], Path("out"), Path("limits"), environ)
    assert [word for word in made if word in {"--upgrade", "--find-links", "/wheels"}] == words
    assert "--generate-hashes" in made


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.apart], ids=lambda lock: lock.path)
def test_a_lock_that_stands_apart_has_no_constraints(lock: Lock) -> None:
    assert "--constraint" not in command(lock, Path("out"), Path("limits"), {})


@pytest.fixture
def dockerfiles(tmp_path: Path) -> Path:
    """A copy of the repository's Dockerfiles."""
    for name in base_digests.DOCKERFILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_base_gets_the_digest_that_its_registry_names(dockerfiles: Path) -> None:
    base_digests.renew(dockerfiles, lambda reference: DIGEST if reference.startswith("python:") else OTHER)
    texts = [(dockerfiles / name).read_text() for name in base_digests.DOCKERFILES]
    assert all(f"BASE=python:3.11-slim-bookworm@{DIGEST}\n" in text for text in texts)
    assert f"ARG BASE=vllm/vllm-openai:v0.32.0@{OTHER}\n" in texts[-1]


def test_a_base_whose_registry_cannot_be_asked_stays_as_it_is(dockerfiles: Path) -> None:
    said = base_digests.renew(dockerfiles, lambda reference: Unknown("no route to host"))
    assert "python:3.11-slim-bookworm: left as it is (no route to host)" in said
    assert all((dockerfiles / name).read_text() == (ROOT / name).read_text() for name in base_digests.DOCKERFILES)


def test_all_bases_of_the_dockerfiles_are_renewed() -> None:
    found = {reference for name in base_digests.DOCKERFILES for reference in base_digests.references((ROOT / name).read_text())}
    assert found == {"python:3.11-slim-bookworm", "vllm/vllm-openai:v0.32.0"}
