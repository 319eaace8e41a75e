"""The command line without a cluster: help, mistakes, no kubectl, and completion."""

from pathlib import Path

import pytest

from kubectl_alise.__main__ import complete, main

COMMANDS = ("status", "top", "explain", "drain", "support-bundle", "ui")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in text] == []


def test_a_mistake_is_named_and_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "chat"]) == 2
    assert "REQUEST" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["status"], ["top"], ["explain", "chat", "req-7"], ["drain", "chat-1"], ["support-bundle", "chat"], ["ui"]]
)
def test_without_kubectl_every_command_says_so(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command) == 1
    assert capsys.readouterr().err == "kubectl alise: kubectl is not on your PATH: install it, or add its folder to PATH\n"


@pytest.mark.parametrize(
    "script", ["printf 'error: a\\033[2Jb' >&2; exit 1", """echo '{"items": [{"metadata": {"name": "a\\u001b[2Jb"}}]}'"""]
)
def test_control_characters_of_the_cluster_do_not_reach_the_terminal(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    main(["status"])
    printed = "".join(capsys.readouterr())
    assert "a [2Jb" in printed
    assert "\x1b" not in printed


ASKED = [
    pytest.param(["drain", "pod/chat-1"], "get pod chat-1", id="a pod"),
    pytest.param(["status", "alise/chat"], "get aliseengines.alise.dev chat", id="a resource by its short name"),
    pytest.param(["explain", "aliseengine.alise.dev/chat", "a/b"], "get aliseengines.alise.dev chat", id="one as kubectl -o name has it"),
]


@pytest.mark.parametrize(("command", "asked"), ASKED)
def test_a_name_may_have_its_kind_before_it_as_kubectl_prints_names(
    command: list[str], asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(command) == 1
    assert asked in (tmp_path / "asked").read_text()


def test_a_name_of_another_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "node/one"]) == 2
    assert "node/one is not a name: give NAME or pod/NAME" in capsys.readouterr().err


def test_commands_and_flags_are_completed_as_kubectl_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    complete(["st"])
    *found, directive = capsys.readouterr().out.splitlines()
    assert ([line.partition("\t")[0] for line in found], directive) == (["status"], ":4")
    complete(["drain", "--f"])
    assert "--force" in capsys.readouterr().out


def test_names_are_not_completed_if_the_cluster_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    complete(["status", ""])
    assert capsys.readouterr().out == ":4\n"
