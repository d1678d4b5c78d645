"""Docstrings of public names: short first sentences, and examples that run as they stand."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_map import EXAMPLE, write_model
from told import alike

import metriloc

PACKAGE = Path(metriloc.__file__).parent
LONGEST = 12
"""Words of a first sentence."""
_CORE = ("backbones", "calibration", "choose", "fusion", "geometry", "io", "page", "tracking", "types", "viz")
OPEN = ("metriloc", *(f"metriloc.{room}" for room in _CORE))
"""Rooms that users come into first: each name has an example."""
PLAIN = {"PosedScene.pair"}
"""Two numbers of photos and what they share: the first sentence says it all."""
SLOW = re.compile(r"metriloc\.(relative_pose|localize|Localizer|load|MicKey|NRE|PixLoc|FeatureMatching)\b")
"""What loads networks."""


def rooms() -> list[str]:
    """Modules that say what is public in them."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if re.search(r"^__all__ = ", path.read_text(), re.M)]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def documented(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a room; values and aliases of types have no docstring of their own."""
    for name in module.__all__:
        found = getattr(module, name)
        if (inspect.isclass(found) or inspect.isfunction(found)) and found.__module__.startswith("metriloc"):
            yield name, found


def methods_of(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines."""
    for own, value in vars(found).items() if inspect.isclass(found) else ():
        value = getattr(value, "__func__", getattr(value, "fget", value))
        if not own.startswith("_") and inspect.isfunction(value):
            yield f"{name}.{own}", value


def first_sentence(doc: str) -> str:
    return re.split(r"(?<=[.!?])(?<!Sec\.)(?<!e\.g\.)\s", " ".join(doc.strip().split("\n\n")[0].split()), maxsplit=1)[0]


@pytest.mark.parametrize("room", rooms())
def test_first_sentences_are_short(room: str) -> None:
    names = dict(documented(importlib.import_module(room)))
    methods = [entry for name, found in names.items() for entry in methods_of(name, found)]
    assert [name for name, found in names.items() if not found.__doc__] == []
    said = {name: first_sentence(found.__doc__ or "") for name, found in [*names.items(), *methods]}
    assert {name: sentence for name, sentence in said.items() if len(sentence.split()) > LONGEST} == {}


def test_first_sentences_are_found() -> None:
    assert first_sentence("One thing (paper Sec. 3). Another.\n\nMore.") == "One thing (paper Sec. 3)."
    assert first_sentence("One thing, at 0.5\nand 0.7\n\nMore.") == "One thing, at 0.5 and 0.7"


@pytest.mark.parametrize("room", OPEN)
def test_every_public_name_has_an_example(room: str) -> None:
    module = importlib.import_module(room)
    assert [name for name, found in documented(module) if ">>> " not in (found.__doc__ or "")] == []


@pytest.mark.parametrize("room", rooms())
def test_more_than_two_arguments_are_a_list(room: str) -> None:
    run_in = []
    for name, found in documented(importlib.import_module(room)):
        for own, function in [(name, found), *methods_of(name, found)]:
            if inspect.isfunction(function) and len(set(inspect.signature(function).parameters) - {"self", "cls"}) > 2:
                run_in += [] if re.search(r"^ *- ", function.__doc__ or "", re.M) or own in PLAIN else [own]
    assert run_in == []


def fields_without_docs(tree: ast.Module) -> list[str]:
    """Fields of configurations that have no docstring after them."""
    found = []
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef) and kind.name.endswith("Config"):
            for field, after in zip(kind.body, [*kind.body[1:], ast.Pass()], strict=True):
                explained = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and not explained:
                    found.append(f"{kind.name}.{ast.unparse(field.target)}")
    return found


def test_every_field_of_a_configuration_is_explained() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    assert [name for tree in trees for name in fields_without_docs(tree)] == []
    assert fields_without_docs(ast.parse("class AConfig:\n    a: int = 1\n    b: int = 2\n    'b.'")) == ["AConfig.a"]


def examples() -> list[Any]:
    """Every docstring of the package with an example that runs; those that load networks are slow."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if ">>> " in text else ():
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            doc = ast.get_docstring(node) or ""
            if any(not e.options.get(doctest.SKIP) for e in doctest.DocTestParser().get_examples(doc)):
                name = getattr(node, "name", "module")
                marks = [pytest.mark.slow] if SLOW.search(doc) else []
                where = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
                found.append(pytest.param(where, name, doc, id=f"{path.relative_to(PACKAGE)}-{name}", marks=marks))
    return found


class Alike(doctest.OutputChecker):
    """Numbers may differ by one in the last digit that is told."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or alike(got, want)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples speak of: two photos, their depth map and intrinsics, and a map of them."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("reference.jpg", "query.jpg", "reference.depth.png", "intrinsics.txt"):
        shutil.copy(EXAMPLE / name, folder)
    (folder / "map" / "images").mkdir(parents=True)
    write_model(folder / "map" / "sparse")
    for name in ("reference.jpg", "query.jpg", "intrinsics.txt"):
        shutil.copy(EXAMPLE / name, folder / "map" / "images")
    return folder


@pytest.mark.parametrize(("module", "name", "doc"), examples())
def test_example(module: str, name: str, doc: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    space = {**vars(importlib.import_module(module)), "metriloc": metriloc}
    test = doctest.DocTestParser().get_doctest(doc, space, name, module, 0)
    printed: list[str] = []
    doctest.DocTestRunner(checker=Alike(), verbose=False).run(test, out=printed.append)
    assert not printed, "".join(printed)
