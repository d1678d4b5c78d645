"""Networks as ONNX files: written right or not at all, compared with torch, and methods that run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import metriloc
from metriloc.backbones import DinoV2Config
from metriloc.cli.main import main
from metriloc.export import check_file, export_network, load_network, on_runtime
from metriloc.export import conformance as conformance_file
from metriloc.export import graph_file as files
from metriloc.export.graph_file import read_graph, require_runs
from metriloc.export.runtime import OnnxRuntime, require_cpu
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyNetwork
from metriloc.types import View

onnx = pytest.importorskip("onnx", reason="exported networks need the extra onnx")
pytest.importorskip("onnxruntime", reason="exported networks need the extra onnx")
pytest.importorskip("onnxscript", reason="exported networks need the extra onnx")
pytestmark = [pytest.mark.extras, pytest.mark.slow]

VIT = DinoV2Config(embed_dim=32, depth=1, num_heads=2, image_size=56)
SIZE = (84, 56)
EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MicKey of the published form, small: photos as they are, a position table of another shape than theirs."""
    torch.manual_seed(0)
    config = MicKeyConfig(backbone=VIT, blocks=(16, 16, 16, 8), descriptor_dim=8, border=0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    MicKey(MicKeyNetwork(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    """Its file for photos of 84x56 pixels, by the command line."""
    path = weights.parent / "onnx" / "tiny.onnx"
    with pytest.raises(SystemExit) as ended:
        main(["export", str(weights), "--size", "90x61", "--out", str(path)])
    assert ended.value.code == 0
    return path


def changed(path: Path, target: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(str(path))
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def test_a_file_says_what_it_is_and_how_close(exported: Path, weights: Path) -> None:
    model, found = read_graph(exported)
    assert (found.kind, found.size, found.source) == ("mickey", SIZE, str(weights))
    assert found.outputs == ("offset", "depth", "score", "descriptor")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 56, 84]
    assert "Resize" not in {node.op_type for node in model.graph.node}  # neither photos nor positions
    assert found.conformance is not None
    shares = {name: value["share"] for name, value in found.conformance["outputs"].items()}
    assert set(shares) == set(found.outputs) and max(shares.values()) < 1e-4
    require_runs(exported)


def test_check_compares_and_notes_what_differs(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(model: Any) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith("offset_head.output.weight"))
        tensor.CopyFrom(onnx.numpy_helper.from_array(1.1 * onnx.numpy_helper.to_array(tensor), tensor.name))

    wrong = changed(exported, tmp_path / "wrong.onnx", spoil)
    _, measured = check_file(wrong)
    by_name = {difference.output: difference for difference in measured.differences}
    assert not measured.close and by_name["offset"].share > 1e-3 > by_name["depth"].share
    noted = read_graph(wrong)[1].conformance
    assert noted is not None and noted["outputs"]["offset"]["largest"] == by_name["offset"].largest
    for path, code in ((wrong, 1), (exported, 0)):
        with pytest.raises(SystemExit) as ended:
            main(["export", "check", str(path)])
        assert ended.value.code == code
    assert "NOT CLOSE: offset differs by" in capsys.readouterr().out


def test_a_file_that_differs_is_not_written(exported: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported.read_bytes()
    monkeypatch.setattr(conformance_file, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match=r"tiny\.onnx' is not written: .* differs by"):
        export_network(load_network(str(weights)).fixed, SIZE, exported)
    assert exported.read_bytes() == before and [p.name for p in exported.parent.iterdir()] == ["tiny.onnx"]


def test_other_weights_are_not_compared(exported: Path) -> None:
    with pytest.raises(InputError, match="holds other weights or settings than 'metriloc-small'"):
        check_file(exported, "metriloc-small")


@pytest.mark.parametrize("size", ["640x", "?x480", "-1x480", "640x480x3", "dynamic"])
def test_a_size_that_is_left_open_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "xfeat", f"--size={size}"])
    assert ended.value.code == 2
    assert "would freeze what depends on it, such as a table of positions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("xfeat+lightglue", "lightglue is not exported: how many points .* export its features alone"),
        ("loftr", "loftr is not exported: it draws fine windows"),
        ("hub:a/b", "models of the hub run in transformers"),
        ("nothing-of-that-name", "there are no weights at 'nothing-of-that-name'"),
    ],
)
def test_what_is_not_exported_says_why(model: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_network(model)


# -- files of strangers ----------------------------------------------------------------------------------------------
def dynamic(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def custom(model: Any) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)


def looping(model: Any) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("If", [model.graph.input[0].name], [], then_branch=body))


def anonymous(model: Any) -> None:
    del model.metadata_props[:]


def wordy(model: Any) -> None:
    onnx.helper.set_model_props(model, {"metriloc.format": "1", "metriloc.source": "a" * 70_000})


def nobody(model: Any) -> None:
    onnx.helper.set_model_props(model, {"metriloc.format": "1", "metriloc.kind": "../x", "metriloc.identity": "0"})


def two_inputs(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


def broken(model: Any) -> None:
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dynamic, r"takes 1x3x56x\?, not one image of a fixed size"),
        (external, "in another file, which is not read"),
        (custom, r"uses com\.example\..*, which is not run"),
        (looping, r"uses ai\.onnx\.If, which is not run"),
        (anonymous, "was not written by metriloc export"),
        (wordy, "was not written by metriloc export"),
        (nobody, "does not say which network it holds"),
        (two_inputs, "takes 2 inputs, not one image"),
        (broken, "is not an ONNX file, or is damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_strangers_file_is_refused(exported: Path, tmp_path: Path, change: Callable[[Any], None], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_graph(changed(exported, tmp_path / "other.onnx", change))


def test_a_file_that_is_none_is_refused(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in (("noise", b"\xff" * 500), ("half", exported.read_bytes()[:5000]), ("text", b"hello\n")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"is not an ONNX file, or is damaged|was not written by"):
            read_graph(path)
        with pytest.raises(InputError, match="does not run: "):
            require_runs(path)
    monkeypatch.setattr(files, "MAX_GRAPH_BYTES", 1000)
    with pytest.raises(InputError, match="such files of more than 1000 are not read"):
        read_graph(exported)


# -- methods ---------------------------------------------------------------------------------------------------------
def view(width: int, height: int) -> View:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return View(image, Camera.from_fov((width, height), 1.0))


def test_a_method_runs_files_of_a_folder_at_any_size(exported: Path, weights: Path) -> None:
    model = MicKey.from_pretrained(weights)
    moved = on_runtime(model, f"onnx:{exported.parent}")
    assert moved is not model and moved.weights_id == model.weights_id
    for size in ((90, 61), SIZE):  # its own size, of which what fills no cell is cut off
        expected, found = model.extract(view(*size)).keypoints, moved.extract(view(*size)).keypoints
        for name in ("uv", "depth", "score", "descriptor"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)
    larger = moved.extract(view(200, 150))
    assert larger.keypoints.grid == (4, 6) and larger.cell == pytest.approx((200 / 6, 150 / 4))
    assert bool((larger.keypoints.uv.amax(1) > torch.tensor([160.0, 110.0])).all())


def test_runtimes_that_cannot_be_are_refused(exported: Path, tmp_path: Path) -> None:
    model = MicKey.from_pretrained(calibrations=())
    for runtime, says in (
        ("tensorrt", "there is no runtime 'tensorrt': one of torch, onnx, onnx:FOLDER"),
        (f"onnx:{tmp_path / 'gone'}", "is not a folder of ONNX files"),
        (f"onnx:{exported.parent}", "has no ONNX file of mickey with these weights and settings: metriloc export"),
    ):
        with pytest.raises(InputError, match=says):
            on_runtime(model, runtime)
    with pytest.raises(InputError, match="identity has no network that is exported"):
        metriloc.load("identity", runtime="onnx")
    with pytest.raises(InputError, match="runs on the CPU: leave out device cuda:0"):
        require_cpu("onnx", "cuda:0")
    assert on_runtime(model, "torch") is model


def test_poses_are_those_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 0.1 mm and 0.01 degrees, on the bundled pair; sizes are exported once, when they are first met."""
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    reference, query = (metriloc.load_view(EXAMPLE / name) for name in ("reference.jpg", "query.jpg"))
    expected = metriloc.load("mickey").relative_pose(reference, query)
    found = metriloc.load("mickey", runtime="onnx").relative_pose(reference, query)
    assert float(found.pose.center_distance(expected.pose)) < 1e-4
    assert float(torch.rad2deg(found.pose.angle_to(expected.pose))) < 0.01
    assert found.verdict == expected.verdict
    written = sorted((tmp_path / "onnx").iterdir())
    sizes = sorted(metriloc.MicKey.from_pretrained(calibrations=()).network.sizes_for(*reference.size))
    assert sorted(read_graph(path)[1].size for path in written) == sizes
    times = [path.stat().st_mtime_ns for path in written]
    metriloc.load("mickey", runtime="onnx").extract(reference)
    assert [path.stat().st_mtime_ns for path in written] == times


def test_only_what_is_a_network_is_swapped() -> None:
    runtime = OnnxRuntime(None)
    thing = object()
    assert runtime.swap(thing) is thing and runtime.swapped == []
