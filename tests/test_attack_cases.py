"""Files made to hurt (``../shared/cases/attack``): each reader answers in one sentence that names the file, quickly."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.calibration import load_calibration
from metriloc.evaluation.records import read_run
from metriloc.evaluation.submission import read_submission
from metriloc.io import InputError
from metriloc.io.hloc import read_log
from metriloc.io.packaged import bundled_folder
from metriloc.io.yaml_file import read_yaml
from metriloc.methods.mickey.checkpoint import config_from_yaml, solver_config_from_yaml
from metriloc.methods.mickey.model import MicKey
from metriloc.methods.pixloc.checkpoint import network_from_tensors, settings_from_conf
from metriloc.methods.pixloc.network import NetworkConfig, PixLocNetwork
from metriloc.solvers.p3p import p3p

Shared = Callable[[str], Path]
SECONDS = 5.0
COVERED = (
    "calibration_*.json",
    "colmap_unnormalised",  # tests/io/test_maps.py
    "compare_xss_run.json",
    "p3p_nan_valid.pt",
    "pickle_*.pkl",
    "pixloc_conf_crashes.json",
    "submission_bomb_full.zip",
    "weights_*",
    "yaml_*.yaml",
)


def refused(read: Callable[[], Any], *, names: str | None = None) -> str:
    """The sentence; one line, soon."""
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        read()
    text = str(caught.value)
    assert time.monotonic() - start < SECONDS
    assert "\n" not in text and text and len(text) < 1000
    if names is not None:
        assert isinstance(caught.value, InputError) and names in text
    return text


def files(shared: Shared, pattern: str) -> list[Path]:
    found = sorted(shared("cases/attack").glob(pattern))
    assert found, pattern
    return found


def test_every_file_has_its_test(shared: Shared) -> None:
    names = {path.name for path in shared("cases/attack").iterdir()}
    known = {path.name for pattern in COVERED for path in files(shared, pattern)}
    assert names == known


def test_calibrations(shared: Shared) -> None:
    for path in files(shared, "calibration_*.json"):
        refused(lambda path=path: load_calibration(path), names=path.name)  # type: ignore[misc]


def test_logs(shared: Shared) -> None:
    for path in files(shared, "pickle_*.pkl"):
        refused(lambda path=path: read_log(path), names=path.name)  # type: ignore[misc]


@pytest.mark.slow
def test_logs_take_little_memory(shared: Shared) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from metriloc.io.hloc import read_log\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in sorted(Path(sys.argv[1]).glob('pickle_*.pkl')):\n"
        "    try: read_log(path)\n"
        "    except ValueError: pass\n"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, shared("cases/attack")], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 100 * 1024  # kB


def test_a_run_whose_method_is_markup_is_text(shared: Shared, tmp_path: Path) -> None:
    # what is shown is escaped (tests/test_pages.py); what could steer a terminal is refused
    content = json.loads(shared("cases/attack/compare_xss_run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_run(tmp_path) == content
    for value in ("a\x1b[2J", 3, "x" * 1000):
        (tmp_path / "run.json").write_text(json.dumps({**content, "method": value}))
        refused(lambda: read_run(tmp_path), names="run.json")


def closed(text: str) -> dict[str, Any]:
    """JSON that was cut off: without what was cut, its brackets closed."""
    for end in (len(text), *(i for i in range(len(text) - 1, 0, -1) if text[i] == ",")):
        stack = []
        for c in text[:end]:
            if c in "[{":
                stack.append("]" if c == "[" else "}")
            elif c in "]}":
                stack.pop()
        try:
            return dict(json.loads(text[:end] + "".join(reversed(stack))))
        except ValueError:
            continue
    raise AssertionError(text)


def test_stored_pixloc_configurations(shared: Shared) -> None:
    tensors = PixLocNetwork(NetworkConfig()).state_dict()
    for name, text in json.loads(shared("cases/attack/pixloc_conf_crashes.json").read_text()).items():
        conf = closed(text)["model"]
        said = refused(lambda conf=conf: settings_from_conf(conf, network_from_tensors(tensors, conf)))  # type: ignore[misc]
        assert len(said) < 200, name


def test_a_bomb_of_a_submission(shared: Shared) -> None:
    path = shared("cases/attack/submission_bomb_full.zip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(lambda: read_submission(path), names=path.name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # kB


def test_weights_with_absurd_settings(shared: Shared, tmp_path: Path) -> None:
    """Beside weights that are right: what is refused is the setting."""
    said = set()
    for path in files(shared, "weights_*"):
        folder = tmp_path / path.name
        shutil.copytree(path, folder, copy_function=shutil.copyfile)
        shutil.copyfile(bundled_folder("metriloc-small") / "model.safetensors", folder / "model.safetensors")
        said.add(refused(lambda folder=folder: MicKey.from_pretrained(folder), names=path.name))  # type: ignore[misc]
    assert len(said) == 10 and not any("safetensors" in text for text in said), said


def test_yaml_beside_a_checkpoint(shared: Shared) -> None:
    for path in files(shared, "yaml_*.yaml"):
        values = read_yaml(path)
        refused(lambda values=values: (config_from_yaml(values), solver_config_from_yaml(values)))  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "a: " + "[" * 40 + "]" * 40,
        "a: &a [*a]\n" + "b: *a\n" * 30,
        "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a, *a]\n" for i in range(10)),
        "a: &a {x: 1}\nb: " + "{<<: [" + ",".join(["*a"] * 50) + "]}",
        "x" * 70_000,
        "a: 2001-13-01",
        "a: !!python/object/apply:os.system [ls]",
        "a: 0x" + "f" * 60_000 + "\n? [b]\n: c",
        "a: " + "9" * 60_000,
        "- 1",
        "a: \x01",
        "a: !!int x",
        "a: !!float []",
        "a: !!timestamp x",
    ],
)
def test_yaml_that_is_none_or_a_bomb(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    refused(lambda: read_yaml(path), names="config.yaml")


def test_rays_that_once_had_a_valid_pose_of_infinity(shared: Shared) -> None:
    content = torch.load(shared("cases/attack/p3p_nan_valid.pt"), weights_only=True)
    found = p3p(content["rays"], content["xyz"])
    valid = found.valid
    assert bool(found.pose.t[valid].isfinite().all()) and bool(found.pose.R[valid].isfinite().all())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", [48, True, 32, 32]),
        ("descriptor_dim", None),
        ("border", None),
        ("batch_norm", "x"),
        ("use_dustbin", None),
        ("log_depth", 1),
        ("backbone", {"variant": "lite0", "stride": 8.0, "width": 64}),
        ("backbone", {"variant": "lite0", "stride": 8, "width": float("inf")}),
        ("backbone", {"variant": "lite0", "stride": 8, "width": True}),
        ("backbone", {"embed_dim": 384, "depth": None, "num_heads": 6}),
    ],
)
def test_settings_of_a_wrong_kind(field: str, value: Any, tmp_path: Path) -> None:
    own = bundled_folder("metriloc-small")
    content = json.loads((own / "config.json").read_text())
    content["network"][field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "model.safetensors").symlink_to(own / "model.safetensors")
    refused(lambda: MicKey.from_pretrained(tmp_path), names=tmp_path.name)
