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


def test_a_device_is_served_without_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.emulated.launch.model_folder", lambda: tmp_path)
    wanted = wanted_from({"DEVICE": "h100-qwen3-32b", "TIME_SCALE": "2", "ARGS": "--seed 7"}, CACHE)
    assert wanted.emulation is not None
    assert (wanted.model, wanted.served_name, wanted.emulation.device.time_scale) == (str(tmp_path), "tiny", 2.0)
    assert wanted.args[-2:] == ("--seed", "7")
    assert "--alise-host-memory" in wanted.args


def test_a_device_with_a_model_is_refused() -> None:
    with pytest.raises(ServeError, match=r"MODEL is 'org/model' and DEVICE is 'h100-qwen3-32b': .* leave MODEL out"):
        wanted_from({"DEVICE": "h100-qwen3-32b", "MODEL": "org/model"}, CACHE)


def test_a_device_that_there_is_not_is_named() -> None:
    with pytest.raises(ServeError, match="DEVICE=abacus: there is no such hardware"):
        wanted_from({"DEVICE": "abacus"}, CACHE)
