"""``metriloc COMMAND ...``: finds the command, runs it, and turns wrong use into one sentence and an exit code.

Only the module of the command that is asked for is imported.
Exit codes: 0 done; 1 done, but a photo has no pose, or a data set lacks a part; 2 wrong use or bad input; 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from metriloc.cli.parsing import parsed
from metriloc.cli.terminal import EXIT_BAD_INPUT, EXIT_INTERRUPTED, complain, printable
from metriloc.version import __version__


@dataclass(frozen=True)
class Command:
    """Where a command lives: ``module.function``; ``help`` is its line in ``metriloc --help``."""

    module: str
    function: str
    help: str


COMMANDS: dict[str, Command] = {
    "demo": Command("metriloc.cli.demo", "demo", "the bundled example: two photos, the pose found and the true one"),
    "relpose": Command("metriloc.cli.relpose", "relpose", "where the second camera stood, relative to the first"),
    "localize": Command("metriloc.cli.localize", "localize", "where in a map the camera of a photo stood"),
    "view": Command("metriloc.cli.view", "view", "what was found, in 3D in a browser or as a file"),
    "track": Command(
        "metriloc.cli.track", "track", "a camera that moves: a stream against a photo or in a map; resumable"
    ),
    "map build": Command("metriloc.cli.map_build", "map_build", "a map from a folder of photos; resumable"),
    "map add": Command("metriloc.cli.map_add", "map_add", "new photos into a map; resumable"),
    "map info": Command("metriloc.cli.map_info", "map_info", "what a map holds, and where its metres are from"),
    "map check": Command("metriloc.cli.map_info", "map_check", "what is weak in a map"),
    "map report": Command(
        "metriloc.cli.map_report", "map_report", "a map as a page: what is weak in it, and all in 3D"
    ),
    "map export": Command("metriloc.cli.map_export", "map_export", "a map for COLMAP, nerfstudio, as PLY"),
    "map bundle": Command("metriloc.cli.map_bundle", "map_bundle", "a map as one file, without its photos if wished"),
    "serve": Command("metriloc.cli.serve", "serve", "anchors and maps over HTTP, with a web page"),
    "serve token": Command("metriloc.cli.serve", "token", "who may use a service: add, rotate, revoke, list"),
    "eval compare": Command(
        "metriloc.cli.eval_compare", "evaluate_compare", "two runs on the same pairs, number by number"
    ),
    "eval score": Command(
        "metriloc.cli.eval_score", "evaluate_score", "score a Map-free submission as published, or cleanly"
    ),
    "eval calibrate": Command(
        "metriloc.cli.eval_calibrate", "evaluate_calibrate", "turn confidences into probabilities"
    ),
    "eval depth": Command("metriloc.cli.eval_depth", "evaluate_depth", "predicted metric depth against true depth"),
    "eval table": Command("metriloc.cli.eval_table", "evaluate_table", "matchers with depths in one table; resumable"),
    "eval trajectory": Command(
        "metriloc.cli.eval_trajectory",
        "evaluate_trajectory",
        "a trajectory against the true one: ATE, RPE, frames found",
    ),
    "eval": Command("metriloc.cli.eval", "evaluate", "run a method over a benchmark and report; resumable"),
    "train": Command("metriloc.cli.train", "train", "train a method by a recipe; resumable"),
    "overlaps": Command("metriloc.cli.overlaps", "overlaps", "how much photos of a posed set share, to train on"),
    "pixloc confidences": Command(
        "metriloc.cli.pixloc_pictures", "confidences", "film what PixLoc trusts in a sequence of photos"
    ),
    "pixloc basin": Command("metriloc.cli.pixloc_basin", "pixloc_basin", "from how far PixLoc finds the true pose"),
    "pixloc damping": Command(
        "metriloc.cli.pixloc_pictures", "damping", "the learned damping factors of PixLoc weights"
    ),
    "data get": Command(
        "metriloc.cli.data", "data_get", "get a data set of the published systems, checked and resumable"
    ),
    "export check": Command("metriloc.cli.export", "export_check", "compare an ONNX file with torch on this machine"),
    "export": Command("metriloc.cli.export", "export", "a network as an ONNX file for photos of one size"),
    "weights list": Command("metriloc.cli.weights", "weights_list", "the weights metriloc knows, and which are here"),
    "weights get": Command("metriloc.cli.weights", "weights_get", "download weights by name, checked and resumable"),
    "weights convert": Command("metriloc.cli.weights", "weights_convert", "turn official checkpoints into ours"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends by SystemExit with the code of the module's docstring."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"metriloc {__version__}")
        raise SystemExit(0)
    name, rest = _split(arguments)
    if name is None:
        wanted_help = all(a in {"-h", "--help", *_groups()} for a in arguments)
        _usage(sys.stdout if wanted_help else sys.stderr, arguments, wanted_help)
        raise SystemExit(0 if wanted_help else EXIT_BAD_INPUT)
    if "" in rest:
        complain(
            name, "one of the arguments is empty: a path or a value is missing (is a variable of the shell unset?)"
        )
        raise SystemExit(EXIT_BAD_INPUT)
    command = COMMANDS[name]
    try:
        code = _run(getattr(importlib.import_module(command.module), command.function), name, rest)
    except KeyboardInterrupt:  # which also ends imports that take long
        print(f"metriloc {name}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    raise SystemExit(code)


def _run(function: Callable[..., int | None], name: str, arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return parsed(function, name, arguments)() or 0
        except (ValueError, OSError, ImportError) as error:
            complain(name, _sentence(error))
            return EXIT_BAD_INPUT


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # our own warnings are advice to the user; those of libraries keep their place in the code
    place = "" if issubclass(category, UserWarning) and "metriloc" in filename else f"{filename}:{lineno}: "
    print(f"warning: {place}{printable(message)}", file=sys.stderr)


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    for length in (2, 1):
        name = " ".join(arguments[:length])
        if name in COMMANDS:
            return name, list(arguments[length:])
    return None, list(arguments)


def _groups() -> set[str]:
    return {name.split()[0] for name in COMMANDS if " " in name}


def _usage(stream: TextIO, arguments: Sequence[str], wanted: bool) -> None:
    if not wanted:
        print(f"metriloc: there is no command {' '.join(arguments[:2])!r}", file=stream)
    print("usage: metriloc COMMAND ...   (metriloc COMMAND --help explains one)\n", file=stream)
    for name, command in COMMANDS.items():
        print(f"  {name:<18} {command.help}", file=stream)
    print("\nWhere is the camera? Metric relative pose from two photos.", file=stream)
