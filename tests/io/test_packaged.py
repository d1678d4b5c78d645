"""What the package carries: bundled weights by name, without network, and nothing that a wheel would leave behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.io import InputError
from metriloc.io.packaged import BUNDLED, bundled_folder, own_data
from metriloc.io.weights import CONFIG, TENSORS, is_bundled, load_weights, resolve_weights, save_weights

PACKAGE = Path(metriloc.__file__).parent
METHODS = {
    "metriloc-small": "mickey",
    "metriloc-depth": "depth",
    "pixloc-small": "pixloc",
    "pixloc-gaussian": "pixloc",
}


@pytest.fixture()
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without bundled weights, and a working directory."""
    monkeypatch.setattr("metriloc.io.packaged.own_data", lambda relative: tmp_path / "data" / relative)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "data"


def test_own_data_is_in_the_package() -> None:
    assert own_data("example") == PACKAGE / "data" / "example" and own_data("example").is_dir()
    assert {entry.name for entry in BUNDLED} == set(METHODS)
    with pytest.raises(
        ValueError,
        match="no bundled weights 'mickey': one of metriloc-small, pixloc-small, pixloc-gaussian, metriloc-depth",
    ):
        bundled_folder("mickey")


@pytest.mark.parametrize("name", METHODS)
def test_bundled_names_are_found_or_one_sentence(name: str, data: Path) -> None:
    assert not is_bundled(name)
    with pytest.raises(InputError, match=f"the weights '{name}' are not in this installation") as caught:
        resolve_weights(name)
    assert "\n" not in str(caught.value) and str(data / "weights" / name) in str(caught.value)
    identity = save_weights(data / "weights" / name, METHODS[name], {}, {"a": torch.ones(2)})
    assert is_bundled(name) and resolve_weights(name, offline=True) == data / "weights" / name
    assert load_weights(resolve_weights(name), METHODS[name]).weights_id == identity


def test_a_folder_of_that_name_does_not_change_the_default(data: Path) -> None:
    save_weights("metriloc-small", "mickey", {}, {"a": torch.zeros(2)})
    bundled = save_weights(data / "weights" / "metriloc-small", "mickey", {}, {"a": torch.ones(2)})
    assert load_weights(resolve_weights("metriloc-small"), "mickey").weights_id == bundled
    for mine in ("./metriloc-small", Path("metriloc-small")):
        assert load_weights(resolve_weights(mine), "mickey").weights_id != bundled


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_here_load_and_say_what_they_may_be_used_for(name: str) -> None:
    if not is_bundled(name):
        pytest.skip(f"{name} is not in this installation yet")
    folder = bundled_folder(name)
    assert {path.name for path in folder.iterdir()} >= {CONFIG, TENSORS, "NOTICE.txt"}
    found = load_weights(folder, METHODS[name])
    assert found.config["sha256"].startswith(found.weights_id.rpartition("-")[2])
    assert (folder / TENSORS).stat().st_size < 20e6


def test_the_wheel_carries_all_data() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("reads pyproject.toml with tomllib")
    import tomllib

    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["metriloc"]
    carried = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    needed = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert needed - carried == set()
    for name in METHODS:  # also what is not there yet
        assert any(Path(f"data/weights/{name}/{TENSORS}").match(pattern) for pattern in patterns)
        assert (bundled_folder(name) / "NOTICE.txt") in carried
