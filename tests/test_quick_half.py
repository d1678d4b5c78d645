"""What ``pytest -m "not slow"`` leaves out leaves no public name untested."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

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
    imported, read, found = set(), set(), set()
    for node in quick_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metriloc"):
            imported |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metriloc":
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            read.add(node.id)
    return found | (imported & read)


def test_every_public_name_is_used_by_a_quick_test() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if path.name != Path(__file__).name]
    used = {name for path in files for name in used_names(ast.parse(path.read_text(encoding="utf-8")))}
    assert sorted(set(metriloc.__all__) - used) == []


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
