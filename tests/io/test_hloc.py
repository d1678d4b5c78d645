"""hloc's files: HDF5 features and descriptors, logs of both layouts, and pickles that want to run something."""

from __future__ import annotations

import os
import pickle
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.geometry import Pose
from metriloc.io import InputError, hloc
from metriloc.io.hloc import image_names, read_features, read_global_descriptors, read_log
from metriloc.io.pickle_objects import Opaque
from metriloc.io.plain_pickle import parse_plain_pickle, read_plain_pickle

PROTOCOLS = (2, 3, 4, 5)


def entry(pnp: Any, db: tuple[int, ...] = (7, 3)) -> dict[str, Any]:
    """A query with three matches, from images 7, 3, and both."""
    return {
        "db": list(db),
        "PnP_ret": pnp,
        "keypoints_query": np.array([[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]]),
        "points3D_ids": [10, 11, 12],
        "points3D_xyz": None,
        "num_matches": 3,
        "keypoint_index_to_db": (np.array([0, 1, 2]), [(10, [0]), (11, [1]), (12, [0, 1])]),
    }


def old_pnp(success: bool = True) -> dict[str, Any]:
    return {
        "success": success,
        "qvec": np.array([1.0, 2.0, 3.0, 4.0]) / np.sqrt(30),
        "tvec": np.array([0.1, -0.2, 5.0]),
        "num_inliers": np.int64(2),
        "inliers": [True, False, True],
    }


def new_pnp(mask: str = "inlier_mask") -> dict[str, Any]:
    pycolmap = pytest.importorskip("pycolmap")
    w, x, y, z = np.array([1.0, 2.0, 3.0, 4.0]) / np.sqrt(30)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), np.array([0.1, -0.2, 5.0]))
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=640, height=480, params=[500, 320, 240, 0.0])
    return {"cam_from_world": pose, "num_inliers": 2, mask: np.array([True, False, True]), "camera": camera}


def written(tmp_path: Path, content: Any, protocol: int = 4) -> Path:
    path = tmp_path / "x_logs.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["old", "new", "new with inliers"])
def test_log_layouts_agree(tmp_path: Path, protocol: int, layout: str) -> None:
    pnp = old_pnp() if layout == "old" else new_pnp("inliers" if "with" in layout else "inlier_mask")
    content = {"features": Path("a/b.h5"), "retrieval": Path("pairs.txt"), "loc": {"q/1.jpg": entry(pnp)}}
    (found,) = read_log(written(tmp_path, content, protocol)).values()
    expected = Pose.from_quaternion(
        torch.tensor([1.0, 2, 3, 4], dtype=torch.float64), torch.tensor([0.1, -0.2, 5.0], dtype=torch.float64)
    )
    assert found.pose is not None
    torch.testing.assert_close(found.pose.matrix(), expected.matrix(), rtol=0, atol=1e-14)
    assert found.references == (7, 3) and found.num_inliers == 2 and len(found) == 3
    assert found.point_ids.tolist() == [10, 11, 12] and found.inlier.tolist() == [True, False, True]
    assert found.sources == ((7,), (3,), (7, 3))
    assert found.uv.tolist() == [[1, 2], [3, 4], [5, 6]]  # COLMAP's half pixel is gone


@pytest.mark.parametrize("pnp", [None, old_pnp(success=False)])
def test_log_without_pose(tmp_path: Path, pnp: Any) -> None:
    (found,) = read_log(written(tmp_path, {"loc": {"q": entry(pnp)}})).values()
    assert found.pose is None and found.num_inliers == 0 and not found.inlier.any() and len(found) == 3


def test_clustered_log(tmp_path: Path) -> None:
    clusters = [entry(None, (7, 3)), entry(new_pnp(), (5, 9))]
    content = {"loc": {"a": {"db": [7, 3, 5, 9], "best_cluster": 1, "log_clusters": clusters}}}
    content["loc"]["b"] = {"db": [7, 3], "best_cluster": None, "log_clusters": clusters[:1]}
    found = read_log(written(tmp_path, content))
    assert found["a"].references == (7, 3, 5, 9) and found["a"].sources == ((5,), (9,), (5, 9))
    assert found["a"].pose is not None and found["b"].pose is None and len(found["b"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"db": None},
        {"keypoint_index_to_db": (np.arange(3), [(10, [0]), (11, [2]), (12, [0])])},
        {"PnP_ret": {**old_pnp(), "inliers": [True]}},
        {"PnP_ret": {**old_pnp(), "qvec": np.zeros(4)}},
        {"PnP_ret": {**old_pnp(), "tvec": np.array([0, np.nan, 0])}},
        {"PnP_ret": {"num_inliers": 1}},
        {"PnP_ret": [1, 2]},
        {"keypoints_query": np.zeros((2, 2))},
        {"log_clusters": [], "best_cluster": 3},
    ],
)
def test_inconsistent_log_names_the_query(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"x_logs\.pkl', query 'q'"):
        read_log(written(tmp_path, {"loc": {"q": {**entry(old_pnp()), **change}}}))
    with pytest.raises(InputError, match="no table"):
        read_log(written(tmp_path, [1, 2]))


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/metriloc-was-here",)


class _Sneaky:
    def __reduce__(self) -> Any:
        return getattr, (np.ndarray, "tofile")


@pytest.mark.parametrize("bad", [_Evil(), _Sneaky(), {"a": [(_Evil(),)]}, eval, torch.zeros(2), np.array([_Evil()])])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_that_run_code_are_refused(tmp_path: Path, bad: Any, protocol: int) -> None:
    mark = Path("/tmp/metriloc-was-here")
    mark.unlink(missing_ok=True)
    with pytest.raises(InputError):
        read_plain_pickle(written(tmp_path, bad, protocol), opaque=("pycolmap",))
    assert not mark.exists()


def test_opaque_objects_run_nothing() -> None:
    """Classes of a named package are not imported, called with what the pickle gives, or found by their name."""
    data = b"cpycolmap\nreconstruct_everything\n(S'now'\ntR."
    found = parse_plain_pickle(data, opaque=("pycolmap",))
    assert isinstance(found, Opaque) and found.get("args") == ("now",) and "reconstruct_everything" in repr(found)
    with pytest.raises(InputError, match="reconstruct_everything"):
        parse_plain_pickle(data)


def test_made_up_arrays_take_no_memory() -> None:
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L99999999999999L\ntS'b'\ntR."
    with pytest.raises(InputError, match="never told what it holds"):
        parse_plain_pickle(huge)
    with pytest.raises(InputError):
        parse_plain_pickle(b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_survives(protocol: int) -> None:
    content = {
        "numbers": [1, 2.5, None, True, 10**30],
        "sets": {1, 2},
        "arrays": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.float32)), np.array(["a", "b"])],
        "scalars": (np.float64(3.5), np.int32(-4), np.bool_(True)),
        "path": Path("a/b"),
    }
    found = parse_plain_pickle(pickle.dumps(content, protocol=protocol))
    assert found["numbers"] == content["numbers"] and found["sets"] == {1, 2} and found["path"] == "a/b"
    for mine, theirs in zip(found["arrays"], content["arrays"], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert found["scalars"] == (3.5, -4, True)


ATTACKS = ("read_4096", "read_67108864", "ndarray_bomb", "memo_bomb_9_bytes", "cyclic_clusters", "huge_int_name")


@pytest.mark.parametrize("name", [*ATTACKS, "huge_shape_error_tolist", "build_on_function"])
def test_hostile_logs_are_one_sentence(name: str, shared: Callable[[str], Path]) -> None:
    """They read foreign memory, asked for gigabytes with nine bytes, or ended in tracebacks."""
    path = shared(f"cases/attack/pickle_{name}.pkl")
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=path.name):
            read_log(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6 and time.monotonic() - started < 5


def test_an_array_is_what_its_bytes_hold_and_nothing_else() -> None:
    """A state that asks for more than its bytes, for objects, or for another kind than it was made of."""
    good = pickle.dumps(np.arange(4, dtype=np.float64), protocol=2)
    assert parse_plain_pickle(good).tolist() == [0, 1, 2, 3]
    for old, new in ((b"f8", b"O8"), (b"f8", b"f4"), (b"f8", b"V8"), (b"K\x04\x85", b"K\x05\x85")):
        assert old in good
        with pytest.raises(InputError):
            parse_plain_pickle(good.replace(old, new))
    writable = parse_plain_pickle(good)
    writable[0] = 7  # its own memory
    assert writable[0] == 7


def test_what_is_shared_is_kept_and_what_contains_itself_is_refused() -> None:
    row = [1.0]
    assert parse_plain_pickle(pickle.dumps({"a": row, "b": row})) == {"a": row, "b": row}
    row.append(row)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="contains itself"):
        parse_plain_pickle(pickle.dumps(row))
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(InputError, match="too deeply"):
        parse_plain_pickle(pickle.dumps(deep))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_data_or_an_input_error(data: bytes) -> None:
    try:
        parse_plain_pickle(data)
    except InputError as error:
        assert "pickle" in str(error)


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_damaged_logs_give_data_or_an_input_error(place: int, value: int) -> None:
    data = bytearray(pickle.dumps({"loc": {"q": entry(old_pnp())}}))
    data[place % len(data)] = value
    try:
        parse_plain_pickle(bytes(data), opaque=("pycolmap",))
    except InputError as error:
        assert str(error)


# -- HDF5 -------------------------------------------------------------------------------------------------------------
@pytest.fixture()
def features(tmp_path: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        for number, name in enumerate(("db/a/1.jpg", "query/q.jpg")):
            group = file.create_group(name)
            group["keypoints"] = np.arange(8, dtype=np.float16).reshape(4, 2) + number
            group["descriptors"] = np.arange(12, dtype=np.float16).reshape(3, 4)
            group["scores"] = np.linspace(0, 1, 4, dtype=np.float16)
            group["image_size"] = np.array([64, 48])
        file.create_group("bad.jpg")["keypoints"] = np.full((2, 2), np.nan)
        file.create_group("empty.jpg")
    return path


def test_features(features: Path) -> None:
    found = read_features(features, "query/q.jpg")
    assert found.uv.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]] and found.uv.dtype == torch.float32
    assert found.descriptors.shape == (4, 3) and found.descriptors[1].tolist() == [1, 5, 9]
    assert image_names(features) == ["bad.jpg", "db/a/1.jpg", "query/q.jpg"]
    for name, words in (
        ("no.jpg", "no image"),
        ("bad.jpg", "finite"),
        ("empty.jpg", "cannot be read"),
        ("db", "cannot"),
    ):
        with pytest.raises(InputError, match=words):
            read_features(features, name)


def test_global_descriptors(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "global.h5"
    with h5py.File(path, "w") as file:
        for number, name in enumerate(("a.jpg", "db/b.jpg")):
            group = file.create_group(name)
            group["global_descriptor"] = np.full(4, number + 0.5)
            group["image_size"] = np.array([640, 480])
        file.create_group("other/c.jpg")["netvlad"] = np.ones(4)
    found = read_global_descriptors(path)
    assert sorted(found) == ["a.jpg", "db/b.jpg", "other/c.jpg"]
    assert found["db/b.jpg"].tolist() == [1.5] * 4 and found["other/c.jpg"].tolist() == [1] * 4
    assert list(read_global_descriptors(path, ["a.jpg"])) == ["a.jpg"]
    with pytest.raises(InputError, match="no image"):
        read_global_descriptors(path, ["z.jpg"])


def test_files_that_are_no_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"not hdf5 at all")
    with pytest.raises(InputError, match="HDF5"):
        image_names(path)
    with pytest.raises(InputError, match="does not exist"):
        image_names(tmp_path / "y.h5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"metriloc\[hloc\]"):
        image_names(path)


@pytest.mark.parametrize("kind", ["large", "external link", "external data", "virtual", "text", "empty", "huge number"])
def test_hdf5_that_asks_for_more_than_its_own_numbers(kind: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 64)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("a.jpg/global_descriptor", data=np.ones(4, np.float32))
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        group = None if kind == "external link" else file.create_group("a.jpg")
        if kind == "large":
            group.create_dataset("global_descriptor", (10**12,), np.float32, chunks=(1000,))
        elif kind == "external link":
            file["a.jpg"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/a.jpg")
        elif kind == "external data":
            group.create_dataset("global_descriptor", (16,), np.float32, external=[(str(secret), 0, 64)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a.jpg/global_descriptor", (4,))
            group.create_virtual_dataset("global_descriptor", layout)
        elif kind == "text":
            group.create_dataset("global_descriptor", data=["x"] * 4)
        elif kind == "empty":
            group.create_dataset("global_descriptor", data=h5py.Empty("f"))
        else:
            group.create_dataset("global_descriptor", data=np.full(4, 1e300))
    with pytest.raises(InputError, match=r"d\.h5'") as caught:
        read_global_descriptors(path, ["a.jpg"])
    assert "\n" not in str(caught.value)


def test_hdf5_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        for i in range(5):
            file.create_dataset(f"{i}.jpg/global_descriptor", data=np.ones(4, np.float32))
    monkeypatch.setattr(hloc, "MAX_DESCRIPTOR_NUMBERS", 15)
    with pytest.raises(InputError, match="more than 15 numbers"):
        read_global_descriptors(path)
    monkeypatch.setattr(hloc, "MAX_IMAGES", 3)
    with pytest.raises(InputError, match="more than 3 images"):
        image_names(path)
