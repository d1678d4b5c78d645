"""What ``pytest -m "not slow"`` leaves out leaves no public name untested."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import metriloc

TESTS = Path(__file__).resolve().parent


def is_slow(node: ast.AST) -> bool:
    """Whether a function or class is marked slow as a whole."""
    marks = getattr(node, "decorator_list", [])
    return any(ast.unparse(mark).startswith("pytest.mark.slow") for mark in marks)


def quick_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those inside what is marked slow; none of a file that is slow as a whole."""
    if any(isinstance(n, ast.Assign) and ast.unparse(n) == "pytestmark = pytest.mark.slow" for n in tree.body):
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not is_slow(child)]


def used_names(tree: ast.Module) -> set[str]:
    """Names of the package that are used outside of slow tests: ``metriloc.NAME``, or imported and then used by name."""
    imported, read, attributes = {"metriloc"}, set(), set()
    for node in quick_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metriloc"):
            imported |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.add((node.value.id, node.attr))
        elif isinstance(node, ast.Name):
            read.add(node.id)
    return (imported & read) - {"metriloc"} | {name for owner, name in attributes if owner in imported}


def rooms() -> list[str]:
    """Modules that say what is public in them."""
    package = Path(metriloc.__file__).parent
    paths = [path for path in sorted(package.rglob("*.py")) if re.search(r"^__all__ = ", path.read_text(), re.M)]
    names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


@pytest.fixture(scope="module")
def used() -> set[str]:
    files = [path for path in TESTS.rglob("*.py") if path.name != Path(__file__).name]
    return {name for path in files for name in used_names(ast.parse(path.read_text(encoding="utf-8")))}


def test_every_public_name_is_used_by_a_quick_test(used: set[str]) -> None:
    assert sorted(set(metriloc.__all__) - used) == []


@pytest.mark.parametrize("room", rooms())
def test_every_public_function_of_a_room_is_used_by_a_quick_test(room: str, used: set[str]) -> None:
    module = importlib.import_module(room)
    functions = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert sorted(functions - used) == []


def test_slow_tests_do_not_count() -> None:
    code = """
from metriloc.geometry import Pose, Camera
@pytest.mark.slow
def test_a():
    Pose, metriloc.load_view
def test_b():
    metriloc.localize
"""
    assert used_names(ast.parse(code)) == {"localize"}
    assert used_names(ast.parse("pytestmark = pytest.mark.slow\nmetriloc.localize")) == set()
