"""The committed protobuf code is what its .proto files generate."""

from pathlib import Path

import pytest

from tests.tools.proto import PACKAGE, SOURCE, generate


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("proto")
    generate(target)
    return target / PACKAGE


@pytest.mark.parametrize("name", sorted(path.name for path in (SOURCE / PACKAGE).glob("*_pb2*")))
def test_committed_code_is_fresh(fresh: Path, name: str) -> None:
    assert (SOURCE / PACKAGE / name).read_text() == (fresh / name).read_text(), f"{name} is stale: run `make proto`"


def test_every_generated_file_is_committed(fresh: Path) -> None:
    assert {path.name for path in fresh.iterdir()} == {path.name for path in (SOURCE / PACKAGE).glob("*_pb2*")}
