"""The command line as a whole: help, version, unknown commands, and every command's own help."""

from __future__ import annotations

import importlib

import pytest

import metriloc
from metriloc.cli.main import COMMANDS, main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("weights",), ("weights", "--help")])
def test_help_lists_every_command(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and command.help in shown for name, command in COMMANDS.items())


@pytest.mark.parametrize("arguments", [("relpos",), ("weights", "take"), ("--verbose",)])
def test_unknown_commands_are_named(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert repr(" ".join(arguments)) in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"metriloc {metriloc.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*name.split(), "--help") == 0
    summary = importlib.import_module(COMMANDS[name].module).__dict__[COMMANDS[name].function].__doc__.splitlines()[0]
    assert " ".join(summary.split()[:4]) in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", stopped)
    assert run("weights", "list") == 130
    assert capsys.readouterr().err == "metriloc weights list: interrupted\n"


def test_wrong_options_end_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("relpose", "a.jpg", "b.jpg", "--no-such-option") == 2
    assert run("relpose", "only-one.jpg") == 2
    assert "no query photo" in capsys.readouterr().err
