"""Files and functions are short, and identifiers are spelled as torch spells them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import metriloc

PACKAGE = Path(metriloc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_A_FILE, LINES_OF_A_BODY = 300, 40
ROUTES = {"_add_anchors", "_add_maps"}
"""Each holds a dozen small functions, the routes of the service."""
BRITISH = re.compile(
    "colour|centre|centring|normalis|localis|initialis|optimis|neighbour|behaviour|licence|serialis|organis|recognis"
    "|catalogue|favour|travelled|cancell|modell|labell",
    re.IGNORECASE,
)


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Names that are given here: of functions, classes, arguments, variables and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def long_bodies(tree: ast.AST) -> list[str]:
    """Functions whose statements, without signature and docstring, take too many lines."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and (node.end_lineno or 0) - body[0].lineno + 1 > LINES_OF_A_BODY and node.name not in ROUTES:
                found.append(node.name)
    return found


def test_files_and_functions_are_short() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in FILES}
    assert [str(path) for path, text in texts.items() if text.count("\n") > LINES_OF_A_FILE] == []
    assert {str(path): found for path, text in texts.items() if (found := long_bodies(ast.parse(text)))} == {}


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_identifiers_are_american(folder: Path) -> None:
    wrong = {
        f"{path.name}: {name}"
        for path in folder.glob("*.py")
        for name in {path.stem, *identifiers(ast.parse(path.read_text(encoding="utf-8")))}
        if BRITISH.search(name)
    }
    assert wrong == set()


def test_what_is_wrong_is_found() -> None:
    tree = ast.parse("def normalise(centre):\n    colour = 1\n" + "    pass\n" * 40)
    assert {name for name in identifiers(tree) if BRITISH.search(name)} == {"normalise", "centre", "colour"}
    assert long_bodies(tree) == ["normalise"]
