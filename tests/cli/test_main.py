"""The command line as a whole: help, version, unknown commands, and every command's own help."""

from __future__ import annotations

import importlib
import signal

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


@pytest.mark.parametrize(
    ("arguments", "inside"),
    [
        (("localize", "map", "photo.jpg"), "localize.QuerySource.open"),
        (("map", "build", "photos", "--out", "map"), "map_build.build_map"),
        (("map", "add", "map"), "map_add.add_photos"),
        (("map", "bundle", "map", "--out", "a.metriloc"), "map_bundle.bundle_map"),
        (("map", "report", "map", "--out", "page.html"), "map_report.open_map"),
        (("map", "export", "map", "--out", "a.ply", "--format", "ply"), "map_export.look_into"),
        (("eval", "identity", "mapfree", "--data", "d", "--out", "run"), "eval.load_benchmark"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_sigterm_is_one_sentence(
    arguments: tuple[str, ...], inside: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pycolmap, which reads maps, takes the signal for itself, and printed its stack."""
    monkeypatch.setattr(f"metriloc.cli.{inside}", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run(*arguments) == 143
    name = " ".join(arguments[: 2 if arguments[0] == "map" else 1])
    assert capsys.readouterr().err == f"metriloc {name}: ended by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before
