"""Lists of localisation benchmarks against a naive reading and pycolmap's cameras, and hostile text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.lists import format_pairs

from metriloc.io import InputError
from metriloc.io.lists import parse_names, parse_pairs, parse_queries, read_queries


def test_golden_pairs(shared: Callable[[str], Path]) -> None:
    text = (shared("golden/bench/visloc") / "pairs-query.txt").read_text()
    pairs = parse_pairs(text)
    lines = [tuple(line.split()) for line in text.splitlines()]
    assert [(q, r) for q, refs in pairs.items() for r in refs] == lines
    assert parse_pairs(format_pairs(pairs)) == pairs


def test_golden_queries(shared: Callable[[str], Path]) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    file = shared("golden/bench/visloc") / "queries_with_intrinsics.txt"
    queries = read_queries(file)
    lines = [line.split() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert list(queries) == [fields[0] for fields in lines]
    xyz = torch.tensor([[0.1, -0.2, 2.0], [0.3, 0.1, 1.5]], dtype=torch.float64)
    for name, model, width, height, *params in lines:
        theirs = pycolmap.Camera(model=model, width=int(width), height=int(height), params=[float(p) for p in params])
        uv, _ = queries[name].project(xyz)
        np.testing.assert_allclose(uv.numpy() + 0.5, theirs.img_from_cam(xyz.numpy()), atol=1e-9)


def test_several_files(tmp_path: Path) -> None:
    (tmp_path / "day_queries.txt").write_text("b PINHOLE 64 48 50 50 32 24\n")
    (tmp_path / "night_queries.txt").write_text(
        "# night\n\na SIMPLE_PINHOLE 64 48 50 32 24\nb PINHOLE 64 48 50 50 32 24\n"
    )
    assert list(read_queries(tmp_path / "*_queries.txt")) == ["b", "a"]
    (tmp_path / "night_queries.txt").write_text("b PINHOLE 64 48 51 50 32 24\n")
    with pytest.raises(InputError, match=r"night_queries.txt' gives 'b' another camera"):
        read_queries(tmp_path / "*_queries.txt")
    with pytest.raises(InputError, match="no list of queries"):
        read_queries(tmp_path / "*.nothing")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a PINHOLE 64 48", "queries:1: .* is not of the form"),
        ("# x\na PINHOLE 64 48 50 50 32", "queries:2: .*PINHOLE takes 4 parameters, got 3"),
        ("a FISHY 64 48 50 50 32 24", "'FISHY' is not supported"),
        ("a PINHOLE 64 48 nan 50 32 24", "'nan' is not a finite number"),
        ("a PINHOLE 64.5 48 50 50 32 24", "64.5 48 is not an image size"),
        ("a PINHOLE 64 -48 50 50 32 24", "is not an image size"),
        ("a PINHOLE 64 48 -50 50 32 24", "focal lengths above 0"),
        ("a PINHOLE 64 48 50 50 32 24\na PINHOLE 64 48 50 51 32 24", "queries:2: 'a' has another camera already"),
    ],
)
def test_malformed_queries(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_queries(text)


def test_names_and_pairs() -> None:
    assert parse_names("# list\n a b.png \r\n\nc.png\n") == ["a b.png", "c.png"]
    with pytest.raises(InputError, match="list:3: 'a' is listed already"):
        parse_names("a\nb\na\n")
    assert parse_pairs("q r2\nq r1\np r1\nq r2\n") == {"q": ("r2", "r1"), "p": ("r1",)}
    with pytest.raises(InputError, match="pairs:2: 'q r s' is not of the form 'query reference'"):
        parse_pairs("q r\nq r s\n")
    blanks = {"a b": ("c  d", "e"), "f": ("a b",)}
    assert parse_pairs(format_pairs(blanks)) == blanks
    with pytest.raises(ValueError, match="cannot stand"):
        format_pairs({"q": ("a\tb",)})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.lists(
                st.sampled_from(["a", "PINHOLE", "OPENCV", "RADIAL", "64", "48", "1e99", "-1", "nan", "0", "#"]),
                max_size=13,
            ).map(" ".join),
        ),
        max_size=5,
    )
)
def test_any_text_gives_a_list_or_one_sentence(lines: list[str]) -> None:
    text = "\n".join(lines)
    for parse in (parse_names, parse_queries, parse_pairs):
        try:
            parse(text, "f.txt")
        except InputError as error:
            assert str(error).startswith("f.txt:")


def test_names_with_blanks(shared: Callable[[str], Path]) -> None:
    queries = parse_queries("my  photo 5.jpg PINHOLE 64 48 50 50 32 24\nPINHOLE PINHOLE 64 48 50 50 32 24\n")
    assert list(queries) == ["my  photo 5.jpg", "PINHOLE"]
    folder = shared("cases/03_hloc_pairs")
    assert list(read_queries(folder / "queries_space.txt")) == ["my photo 5.jpg"]
    for name in ("pairs_space.txt", "pairs_comma.txt"):
        with pytest.raises(InputError, match=r":1: .*names with blanks need a tab"):
            parse_pairs((folder / name).read_text())
