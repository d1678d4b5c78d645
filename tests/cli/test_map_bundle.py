"""Bundles: made, opened and localized in, with and without photos; left alone, renewed; and those of strangers."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.io.bundles import FEATURES, MANIFEST, MAX_MANIFEST_BYTES, open_bundle
from metriloc.io.mapped_tensors import MappedTensors, TensorWriter
from metriloc.localizer import Localizer
from metriloc.runs.map_bundle import bundle_map

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
METHODS = ("xfeat-pnp", "pixloc")


@pytest.fixture(scope="module")
def made(example_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one file, without photos."""
    file = tmp_path_factory.mktemp("bundle") / "room.metriloc"
    facts = bundle_map(example_map, file, images=EXAMPLE, methods=METHODS, photos=False)
    assert facts.fresh and facts.methods == METHODS and facts.size == file.stat().st_size
    return file


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("method", ["xfeat-pnp", pytest.param("pixloc", marks=pytest.mark.slow)])
def test_a_bundle_without_photos_answers_as_the_map(example_map: Path, made: Path, method: str) -> None:
    whole = Localizer(example_map, images=EXAMPLE, method=method)
    bundled = Localizer(made, method=method)
    assert bundled.scene.folder is None
    view = metriloc.load_view(EXAMPLE / "query.jpg")
    expected, found = whole.localize(view), bundled.localize(view)
    assert bool(found.success) and found.verdict == expected.verdict
    # PixLoc's features of a map are float32, those of a bundle float16
    near = 1e-9 if method == "xfeat-pnp" else 1e-3
    assert float(found.pose.center_distance(expected.pose)) < near
    assert found.localization[0].references == expected.localization[0].references


def test_a_bundle_chooses_its_method(made: Path) -> None:
    assert Localizer(made).method.name == "xfeat-pnp"
    with pytest.raises(InputError, match="no photos, and features of xfeat-pnp, pixloc, not of nre-xfeat"):
        Localizer(made, method="nre-xfeat")
    with pytest.raises(InputError, match="all that is needed of its photos in it"):
        Localizer(made, images=EXAMPLE)


def test_the_command_chooses_the_method_of_a_bundle(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("localize", made, EXAMPLE / "query.jpg", "--json") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "xfeat-pnp"


@pytest.mark.slow
def test_the_command_and_a_folder_with_photos(
    example_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = (example_map, "--images", EXAMPLE, "--methods", "xfeat-pnp")
    assert run("map", "bundle", *place, "--out", tmp_path / "room") == 0
    assert (tmp_path / "room/images/reference.jpg").is_file() and (tmp_path / "room/sparse/cameras.bin").is_file()
    assert "written" in capsys.readouterr().out
    assert run("map", "bundle", *place, "--out", tmp_path / "room") == 0
    assert "up to date already" in " ".join(capsys.readouterr().out.split())
    query = tmp_path / "query.jpg"
    shutil.copyfile(EXAMPLE / "query.jpg", query)
    words = ("--fov", "60", "--method", "xfeat-pnp")
    assert run("localize", tmp_path / "room", query, *words, "--out", tmp_path / "result") == 0
    found = json.loads((tmp_path / "result/poses.json").read_text())["queries"][0]
    assert found["success"] and len(found["covariance"]) == 6 and {"retrieval", "query"} <= set(found["timings_s"])
    assert Localizer(tmp_path / "room", method="nre-xfeat").localize(EXAMPLE / "query.jpg").success
    assert run("map", "bundle", *place, "--out", tmp_path / "room", "--no-photos") == 0
    assert not (tmp_path / "room/images").exists()
    assert run("localize", tmp_path / "room", query, *words, "--out", tmp_path / "again") == 0


def test_a_stale_bundle_is_made_again(example_map: Path, tmp_path: Path) -> None:
    photos, file = tmp_path / "photos", tmp_path / "room.metriloc"
    photos.mkdir()
    for name in ("reference.jpg", "query.jpg"):
        shutil.copyfile(EXAMPLE / name, photos / name)
    make = lambda: bundle_map(example_map, file, images=photos, methods=("xfeat-pnp",), photos=False)  # noqa: E731
    assert make().fresh and not make().fresh
    before = file.read_bytes()
    with open(photos / "query.jpg", "ab") as photo:
        photo.write(b"\0")
    assert make().fresh and file.read_bytes() != before
    file.write_bytes(before[:-100])
    assert make().fresh and not make().fresh
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_is_in_the_way_stays(example_map: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("mine")
    (tmp_path / "x.metriloc").mkdir()
    for place in ("file", "folder", "x.metriloc"):
        with pytest.raises(InputError, match="is in the way"):
            bundle_map(example_map, tmp_path / place, images=EXAMPLE, methods=("xfeat-pnp",))
    assert (tmp_path / "folder/mine").read_text() == "mine"
    with pytest.raises(InputError, match="no localizer 'orb'"):
        bundle_map(example_map, tmp_path / "new", images=EXAMPLE, methods=("orb",))


@pytest.mark.slow
def test_killed_while_writing(example_map: Path, tmp_path: Path) -> None:
    """Ended by SIGKILL in the middle of the features: nothing is there, and the next run leaves nothing beside it."""
    file = tmp_path / "room.metriloc"
    code = (
        "import os, signal, sys\n"
        "from metriloc.io.mapped_tensors import TensorWriter\n"
        "add = TensorWriter.add\n"
        "TensorWriter.add = lambda *a: (add(*a), os.kill(os.getpid(), signal.SIGKILL))\n"
        "from metriloc.runs.map_bundle import bundle_map\n"
        "bundle_map(sys.argv[1], sys.argv[2], images=sys.argv[3], methods=('xfeat-pnp',))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(example_map), str(file), str(EXAMPLE)], check=False)
    assert done.returncode == -9 and not file.exists() and list(tmp_path.iterdir())
    bundle_map(example_map, file, images=EXAMPLE, methods=("xfeat-pnp",), photos=False)
    assert [p.name for p in tmp_path.iterdir()] == ["room.metriloc"]


# -- of strangers -----------------------------------------------------------------------------------------------------
def changed(made: Path, target: Path, change: Callable[[dict[str, bytes]], None], *, packed: bool = False) -> Path:
    """The bundle with other entries."""
    with zipfile.ZipFile(made) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name.removesuffix("#2"), data)
    return target


def manifest(change: Callable[[dict[str, object]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(entries: dict[str, bytes]) -> None:
        content = json.loads(entries[MANIFEST])
        change(content)
        entries[MANIFEST] = json.dumps(content).encode()

    return apply


def bomb(entries: dict[str, bytes]) -> None:
    entries["images/bomb.jpg"] = bytes(1 << 24)


CASES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "slip": (lambda e: e.update({"../../evil": b"x"}), "of which its manifest says nothing"),
    "slip in the manifest": (
        manifest(lambda c: c["files"].update({"images/../../evil": {"bytes": 1, "sha256": ""}})),  # type: ignore[attr-defined]
        "which is no place in a bundle",
    ),
    "absolute": (
        manifest(lambda c: c["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}})),  # type: ignore[attr-defined]
        "which is no place in a bundle",
    ),
    "stranger": (lambda e: e.update({"run.sh": b"x"}), "of which its manifest says nothing"),
    "wrong hash": (lambda e: e.update({FEATURES: e[FEATURES][:-1] + b"\x7f"}), "SHA-256 differ"),
    "wrong size": (lambda e: e.update({FEATURES: e[FEATURES] + b"\0"}), "bytes, not the"),
    "missing": (lambda e: e.pop("sparse/images.bin"), "lacks its file"),  # type: ignore[arg-type, return-value]
    "no manifest": (lambda e: e.pop(MANIFEST), "has no manifest.json"),  # type: ignore[arg-type, return-value]
    "other format": (manifest(lambda c: c.update({"format": "metriloc-bundle-9"})), "this metriloc reads"),
    "no methods": (manifest(lambda c: c.pop("methods")), "is damaged: KeyError"),  # type: ignore[arg-type, return-value]
    "not JSON": (lambda e: e.update({MANIFEST: b"{"}), "is not JSON"),
    "deep": (lambda e: e.update({MANIFEST: b"[" * 100_000}), "nested too deep|is not JSON"),
    "no text": (lambda e: e.update({MANIFEST: b"\xff\xfe\x00"}), "is no text"),
    "huge manifest": (lambda e: e.update({MANIFEST: b" " * (MAX_MANIFEST_BYTES + 1)}), "claims a manifest of"),
    "many methods": (manifest(lambda c: c.update({"methods": [{}] * 1000})), "which no bundle has"),
    "absurd size": (
        manifest(lambda c: c["files"][FEATURES].update({"bytes": 10**30})),  # type: ignore[index]
        "bytes, not the",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bundles_of_strangers(made: Path, tmp_path: Path, case: str) -> None:
    change, words = CASES[case]
    hostile = changed(made, tmp_path / "x.metriloc", change)
    with pytest.raises(InputError, match=words) as raised:
        open_bundle(hostile)
    assert len(str(raised.value).splitlines()) == 1
    assert not (tmp_path.parent / "evil").exists()


def test_archives_that_are_none_or_grow(made: Path, tmp_path: Path) -> None:
    data, hostile = made.read_bytes(), tmp_path / "x.metriloc"
    for cut in (0, 1, 100, len(data) // 2, len(data) - 10):
        hostile.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"is no bundle, or is damaged|is empty"):
            open_bundle(hostile)
    changed(made, hostile, bomb, packed=True)
    with pytest.raises(InputError, match="larger than itself"):
        open_bundle(hostile)
    changed(made, hostile, lambda e: None, packed=True)
    with pytest.raises(InputError, match=r"packed or encrypted|larger than itself"):
        open_bundle(hostile)
    with pytest.warns(UserWarning, match="Duplicate"):
        changed(made, hostile, lambda e: e.update({f"{FEATURES}#2": b"x"}))
    with pytest.raises(InputError, match="twice"):
        open_bundle(hostile)
    with zipfile.ZipFile(made) as archive:
        entries = archive.infolist()
    with zipfile.ZipFile(hostile, "w") as archive, zipfile.ZipFile(made) as source:
        for entry in entries:
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, source.read(entry.filename))
    with pytest.raises(InputError, match="holds a link"):
        open_bundle(hostile)


def test_entries_that_overlap_claim_more_than_there_is(made: Path, tmp_path: Path) -> None:
    """Of a zip in which many entries are the same bytes, each would be unpacked by itself."""
    hostile = tmp_path / "x.metriloc"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr(MANIFEST, b"{}" * 1000)
        first = archive.infolist()[0]
        for n in range(50):
            other = zipfile.ZipInfo(f"images/{n}")
            other.header_offset, other.CRC = first.header_offset, first.CRC
            other.file_size = other.compress_size = first.file_size
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    with pytest.raises(InputError, match="larger than itself"):
        open_bundle(hostile)


def test_a_folder_that_leads_elsewhere(example_map: Path, tmp_path: Path) -> None:
    folder = tmp_path / "room"
    bundle_map(example_map, folder, images=EXAMPLE, methods=("xfeat-pnp",))
    shutil.copyfile(folder / "images/query.jpg", tmp_path / "outside.jpg")
    (folder / "images/query.jpg").unlink()
    (folder / "images/query.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(InputError, match="a link that leads out of it"):
        open_bundle(folder)
    (folder / "images/query.jpg").unlink()
    with pytest.raises(InputError, match="lacks its file"):
        open_bundle(folder)


# -- tensors ----------------------------------------------------------------------------------------------------------
def tensors_file(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    writer = TensorWriter(path)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
    writer.finish({"photos": "{}"})
    return path


def test_written_tensors_are_those_that_safetensors_reads(tmp_path: Path, generator: torch.Generator) -> None:
    from safetensors.torch import load_file

    tensors = {
        "half": torch.rand(3, 5, generator=generator).half(),
        "none": torch.zeros(0, 64).half(),
        "index": torch.arange(7),
        "mask": torch.tensor([True, False]),
        "wide": torch.rand(2, generator=generator).double(),
    }
    file = tensors_file(tmp_path / "t.safetensors", tensors)
    theirs, mapped = load_file(file), MappedTensors(file)
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor) and torch.equal(mapped.read(name), tensor)
    (tmp_path / "more").write_bytes(b"abc" + file.read_bytes() + b"xyz")
    inside = MappedTensors(tmp_path / "more", 3, file.stat().st_size)
    assert torch.equal(inside.read("half"), tensors["half"]) and inside.metadata == {"photos": "{}"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 9]}}, "that is not in it"),
        ({"a": {"dtype": "F16", "shape": [2**40], "data_offsets": [0, 2**41]}}, "that is not in it"),
        ({"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, -2]}}, "that is not in it"),
        ({"a": {"dtype": "F16", "shape": [2] * 50, "data_offsets": [0, 8]}}, "that is not in it"),
        ({"a": {"dtype": "F16", "shape": [True], "data_offsets": [0, 2]}}, "that is not in it"),
        ({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 8]}}, "in no way that can be read"),
        ({"a": 3}, "in no way that can be read"),
        ([], "table of tensors that is none"),
    ],
)
def test_tables_of_strangers(tmp_path: Path, header: object, words: str) -> None:
    text = json.dumps(header).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match=words):
        MappedTensors(file)
    file.write_bytes(struct.pack("<Q", 2**62) + text)
    with pytest.raises(InputError, match="claims a table of tensors"):
        MappedTensors(file)
    file.write_bytes(b"\0\0")
    with pytest.raises(InputError, match="is cut off"):
        MappedTensors(file)
    tensors_file(tmp_path / "nan", {"a": torch.tensor([float("nan")])})
    with pytest.raises(InputError, match="NaN or infinite"):
        MappedTensors(tmp_path / "nan").read("a")


def test_features_of_other_points_are_refused(made: Path, tmp_path: Path) -> None:
    """The manifest of a stranger is as true as the stranger: what is used is looked at."""
    import hashlib

    with zipfile.ZipFile(made) as archive:
        (tmp_path / "f").write_bytes(archive.read(FEATURES))
    mapped = MappedTensors(tmp_path / "f")
    others = {name: mapped.read(name)[:1] if mapped.read(name).ndim else mapped.read(name) for name in mapped.names()}
    writer = TensorWriter(tmp_path / "g")
    for name, tensor in others.items():
        writer.add(name, tensor)
    writer.finish(mapped.metadata)
    data = (tmp_path / "g").read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def change(entries: dict[str, bytes]) -> None:
        entries[FEATURES] = data
        manifest(lambda c: c["files"].update({FEATURES: entry}))(entries)  # type: ignore[attr-defined]

    hostile = changed(made, tmp_path / "x.metriloc", change)
    view = metriloc.load_view(EXAMPLE / "query.jpg")
    for method in METHODS:
        found = Localizer(hostile, method=method).localize(view)
        assert not bool(found.success)
        assert any("make the bundle again" in message for message in found.localization[0].messages), method
