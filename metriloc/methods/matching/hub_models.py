"""Models of the hub that ``transformers`` runs: found, checked and loaded. Neither code nor pickles of theirs are run.

``transformers`` (extra ``hub``) is imported when the first model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from metriloc.io import InputError
from metriloc.io.download import file_sha256
from metriloc.io.files import read_json
from metriloc.io.hub import CARD, HUB_NAME, hub_snapshot, license_of
from metriloc.io.weights import CONFIG, MAX_CONFIG_BYTES

PREFIX = "hub:"
PREPROCESSOR = "preprocessor_config.json"
_FILES = (CONFIG, PREPROCESSOR, "processor_config.json", CARD, "model*.safetensors", "model*.safetensors.index.json")
_SIDES = (32, 4096)
# what transformers raises on a configuration or on tensors that do not fit; validation errors are plain Exceptions
_UNFIT = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError)


@dataclass(frozen=True)
class HubModel:
    """A model that is on this machine. name: as the user gave it, behind ``hub:``; config: its ``config.json``;
    license: what its card states."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    license: str

    @property
    def kind(self) -> str:
        """The architecture, such as ``depth_anything``."""
        return str(self.config.get("model_type"))

    @cached_property
    def weights_id(self) -> str:
        """Equal only for equal numbers."""
        files = [*sorted(self.folder.glob("model*.safetensors")), self.folder / CONFIG, self.folder / PREPROCESSOR]
        sums = "".join(file_sha256(path) for path in files if path.is_file())
        return f"{self.kind}-{hashlib.sha256(sums.encode()).hexdigest()[:12]}"

    def preprocessing(self) -> Mapping[str, Any]:
        """What the model says of how photos are brought to it. Empty when it says nothing."""
        path = self.folder / PREPROCESSOR
        return _read_table(path) if path.is_file() else {}

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the photos that the model takes, by default the given; raises InputError for odd ones."""
        size = self.preprocessing().get("size")
        table = size if isinstance(size, dict) else {}
        sides = table.get("width", width), table.get("height", height)
        if not all(isinstance(side, int) and _SIDES[0] <= side <= _SIDES[1] for side in sides):
            raise InputError(
                f"'{self.folder / PREPROCESSOR}': size must be {_SIDES[0]} to {_SIDES[1]} pixels, got {size}"
            )
        return sides


def find_hub_model(name: str, offline: bool | None = None) -> HubModel:
    """A model by ``OWNER/NAME`` or by its folder (``./folder``, ``/folder``), downloaded where it is not here.

    Raises InputError for a name that is neither, a model that cannot be had, that has no safetensors, or that asks for
    code of its own.
    """
    if name.startswith((".", "/", "~")) or Path(name).is_absolute():
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise InputError(f"{PREFIX}{name}: there is no folder '{folder}'")
    elif HUB_NAME.fullmatch(name):
        folder = hub_snapshot(name, _FILES, offline)
    else:
        raise InputError(f"{PREFIX}{name} must be {PREFIX}OWNER/NAME, or {PREFIX}./FOLDER for a folder on this machine")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{PREFIX}{name} is no model of transformers: it has no {CONFIG}")
    config = _read_table(folder / CONFIG)
    if _asks_for_more(config):
        raise InputError(f"{PREFIX}{name} asks for code or weights of another place (auto_map), which is never run")
    if not any(folder.glob("model*.safetensors")):
        raise InputError(
            f"{PREFIX}{name} has no model.safetensors, and weights of other kinds (pickles) are not loaded"
        )
    return HubModel(name, folder, config, license_of(folder))


def licenses_of(*names: str) -> tuple[str, ...]:
    """One sentence for each name that begins with ``hub:``.

    What the card of the model says of its licence.
    """
    models = dict.fromkeys(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
    return tuple(f"{PREFIX}{name}: licence by its card: {find_hub_model(name).license}" for name in models)


def _read_table(path: Path) -> dict[str, Any]:
    content = read_json(path, MAX_CONFIG_BYTES)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a JSON object")
    return content


def _asks_for_more(config: Any) -> bool:
    """Whether a part of a configuration names code of its own, or a backbone whose weights are elsewhere."""
    if isinstance(config, list):
        return any(_asks_for_more(part) for part in config)
    if not isinstance(config, dict):
        return False
    if config.get("auto_map") or config.get("use_pretrained_backbone"):
        return True
    return any(_asks_for_more(part) for part in config.values())


def load_network(model: HubModel, class_name: str, *, max_keypoints: int | None = None) -> Any:
    """The network of a model of the hub, in single precision.

    It is of the class of ``transformers`` with that name. max_keypoints: at most so many keypoints,
    where it detects any. Raises InputError, with the pip command, without ``transformers``, and for
    tensors that are missing or do not fit.
    """
    transformers = transformers_for(model)
    with _quiet(transformers):
        try:
            network_class = getattr(transformers, class_name)
            config = network_class.config_class.from_pretrained(model.folder, local_files_only=True)
            _limit_keypoints(config, max_keypoints)
            network, told = network_class.from_pretrained(
                model.folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except _unfit() as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{PREFIX}{model.name} could not be loaded as {model.kind}: {reason}") from error
    # transformers would go on with random numbers in their place
    absent = sorted(map(str, [*told.get("missing_keys", ()), *told.get("mismatched_keys", ())]))
    if absent:
        raise InputError(
            f"{PREFIX}{model.name}: {len(absent)} tensors of {model.kind} are missing or of another shape, "
            f"such as {absent[0][:100]}"
        )
    return network.eval()


def load_processor(model: HubModel) -> Any:
    """What brings photos to a network. Raises InputError where the model has none."""
    transformers = transformers_for(model)
    with _quiet(transformers):
        try:
            return transformers.AutoImageProcessor.from_pretrained(
                model.folder, local_files_only=True, trust_remote_code=False
            )
        except _unfit() as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{PREFIX}{model.name}: its {PREPROCESSOR} could not be used: {reason}") from error


def transformers_for(model: HubModel) -> Any:
    """The module ``transformers``.

    Raises InputError, with the pip command, when it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as error:
        raise InputError(f'{PREFIX}{model.name} needs transformers: pip install "metriloc[hub]"') from error


def _unfit() -> tuple[type[Exception], ...]:
    errors = import_module("huggingface_hub.errors"), import_module("safetensors")
    return (*_UNFIT, errors[0].StrictDataclassError, errors[1].SafetensorError)


def _limit_keypoints(config: Any, limit: int | None) -> None:
    detector = getattr(config, "keypoint_detector_config", None) or config
    wanted = getattr(detector, "max_keypoints", None)
    if limit is not None and wanted is not None and not 0 <= wanted <= limit:
        detector.max_keypoints = limit


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without bars and reports: what is wrong with a model is said in one sentence."""
    logging = transformers.utils.logging
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
