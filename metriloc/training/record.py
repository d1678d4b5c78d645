"""The run folder: config.json, log.txt, metrics.jsonl, TensorBoard and the pages of pictures.

Only the first process writes; the others hold a record that writes nothing. On ``--resume`` everything later than the
checkpoint is taken out of metrics.jsonl again, so that it reads as if the run had never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from metriloc.io import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.training.pages import validation_page
from metriloc.training.validation import Validation
from metriloc.version import __version__

CONFIG, LOG, METRICS, PAGES, TENSORBOARD = "config.json", "log.txt", "metrics.jsonl", "validation", "tensorboard"

logger = logging.getLogger("metriloc.training")


class Record:
    """What a run leaves behind, beside its checkpoints; a context that closes its files, and notes what ended it.

    folder: the run folder, None to write nothing. step: the record goes on after this step. tensorboard: ``auto`` uses it
    where it is installed; ``on`` raises ImportError where it is not.
    """

    def __init__(self, folder: Path | None, title: str, step: int = 0, tensorboard: str = "auto") -> None:
        self._folder, self._title = folder, title
        self._writer: Any = None
        self._history: dict[str, list[tuple[int, float]]] = {}
        if folder is None:
            return
        prepare_output_folder(folder)
        self._truncate(folder / METRICS, step)
        self._writer = _summary_writer(folder / TENSORBOARD, step, tensorboard)
        self._metrics = open(folder / METRICS, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self._handler = logging.FileHandler(folder / LOG, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._handler)
        self._level = logger.level
        logger.setLevel(logging.INFO)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is None:
            return
        if error is not None and kind is not None:
            # to the file alone: whoever catches the error tells the user
            exc_info = (kind, error, trace)
            self._handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "ended by", (), exc_info))
        logger.removeHandler(self._handler)
        logger.setLevel(self._level)
        self._handler.close()
        self._metrics.close()
        if self._writer is not None:
            self._writer.close()

    def say(self, sentence: str, level: int = logging.INFO) -> None:
        """A line for log.txt and for whoever listens to the logger ``metriloc.training``."""
        if self._folder is not None:
            logger.log(level, sentence)

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl (what is not finite becomes null), and scalars ``kind/name`` for TensorBoard."""
        if self._folder is None:
            return
        entries = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._metrics.write(json.dumps({"kind": kind, "step": step, **entries}, allow_nan=False) + "\n")
        self._metrics.flush()
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(f"{kind}/{key}", value, step)

    def validation(self, step: int, result: Validation) -> None:
        """The numbers, the pictures for TensorBoard, and the page ``validation/step_00001000.html``."""
        if self._folder is None:
            return
        metrics = {key: float(value) for key, value in result.metrics.items()}
        self.numbers("validation", step, metrics)
        for key, value in metrics.items():
            self._history.setdefault(key, []).append((step, value))
        page = validation_page(self._title, step, result, self._history)
        folder = prepare_output_folder(self._folder / PAGES)
        write_atomically(folder / f"step_{step:08d}.html", page)
        if self._writer is not None:
            for picture in result.pictures:
                self._writer.add_image(picture.title, picture.rgb, step, dataformats="HWC")
            self._writer.flush()

    def _truncate(self, path: Path, step: int) -> None:
        """Drop what is later than ``step`` and a last line that was cut off; remember the validations before."""
        if not path.exists() or path.stat().st_size == 0:
            return
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                if not entry["step"] <= step:
                    continue
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            kept.append(line)
            if entry.get("kind") == "validation":
                for key, value in entry.items():
                    if key not in ("kind", "step"):
                        self._history.setdefault(key, []).append((entry["step"], math.nan if value is None else value))
        write_atomically(path, "".join(f"{line}\n" for line in kept))


def _summary_writer(folder: Path, step: int, wish: str) -> Any:
    if wish == "off":
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wish == "on":
            raise ImportError('training.tensorboard=on needs tensorboard: pip install "metriloc[train]"') from error
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def software() -> dict[str, Any]:
    """What a run would need to be repeated: versions, and the git commit where metriloc runs from its repository."""
    commit, changed = git_commit()
    return {
        "metriloc": __version__,
        "git_commit": commit,
        "git_changed": changed,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_commit() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the repository metriloc runs from; (None, None) if it is not in
    one of its own."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None, None  # installed below somebody else's repository
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """Write config.json."""
    write_atomically(folder / CONFIG, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a run. Raises InputError when it is not there or not what a run writes."""
    path = folder / CONFIG
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise InputError(f"'{path}' was not written by metriloc train")
    return content
