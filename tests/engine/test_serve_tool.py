"""What `make serve` reads from the environment."""

import socket
from pathlib import Path

import pytest

from tests.tools.serve import ServeError, Wanted, refuse_busy_port, wanted_from

CACHE = Path("/cache")


def test_without_a_model_it_is_the_tiny_one() -> None:
    assert wanted_from({}, CACHE) == Wanted(8000, "/cache/models/tiny", "tiny", ())


def test_port_model_and_flags_are_the_users() -> None:
    environ = {"PORT": "9000", "MODEL": "org/model", "ARGS": "--max-model-len 2048 --chat-template 'a b'"}
    assert wanted_from(environ, CACHE) == Wanted(9000, "org/model", "org/model", ("--max-model-len", "2048", "--chat-template", "a b"))


def test_a_folder_is_served_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert wanted_from({"MODEL": str(tmp_path / "mine")}, CACHE).served_name == "mine"


@pytest.mark.parametrize("port", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_named(port: str) -> None:
    with pytest.raises(ServeError, match="PORT"):
        wanted_from({"PORT": port}, CACHE)


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServeError, match="choose another with PORT="):
            refuse_busy_port(taken.getsockname()[1])
