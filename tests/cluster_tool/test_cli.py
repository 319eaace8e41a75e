"""The commands, where they do not start anything."""

from pathlib import Path

import pytest

from tests.cluster.access import user_cluster
from tests.cluster.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALISE_CACHE", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    # main() takes signals over for its process, which is the test run's here.
    monkeypatch.setattr("tests.cluster.cli.signal.signal", lambda *_: None)


def test_status_without_a_cluster_says_down_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1
    assert capsys.readouterr().out == "down\n"


def test_down_without_a_cluster_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert "cluster local is not there" in capsys.readouterr().err


def test_kubeconfig_without_a_cluster_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kubeconfig"]) == 1
    assert "start it with `python -m tests.cluster up`" in capsys.readouterr().err


def test_importing_images_without_a_cluster_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "import", str(tmp_path / "a.tar")]) == 1
    assert "start the whole node first" in capsys.readouterr().err


def test_an_unusable_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "No Such", "status"]) == 1
    assert "cluster name 'No Such' is not usable" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_the_users_own_cluster_is_never_started_or_stopped(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "mine"))
    assert main([command]) == 0
    assert "is used as it is" in capsys.readouterr().err
    assert not (tmp_path / "clusters").exists()


def test_the_users_own_kubeconfig_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "mine"))
    assert main(["kubeconfig"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mine'}\n"


def test_a_kubeconfig_of_this_tools_own_cluster_does_not_keep_it_from_being_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "clusters" / "local" / "admin.kubeconfig"))
    assert user_cluster() is None
    assert main(["down"]) == 0
    assert "cluster local is not there" in capsys.readouterr().err
