"""The pages of docs/: all in the navigation, linked rightly, narrow; their Python runs; what they tell of the code is so."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from told import alike

import metriloc

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXAMPLE = ROOT / "metriloc" / "data" / "example"
GUIDES = [DOCS / "start.md", DOCS / "extending.md", *sorted((DOCS / "howto").glob("*.md"))]
"""Pages whose Python is run; what is marked ``python notest`` needs files or weights that are not here."""
CARDS = sorted((DOCS / "models").glob("*.md"))


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


builder: Any = loaded(ROOT / "tools" / "build_docs.py")


def pages_of(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for value in (entry.values() if isinstance(entry, dict) else entry) for page in pages_of(value)]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """As the builder makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


def wrong_links(path: Path) -> list[str]:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{path.name}: {link}")
    return wrong


def test_every_page_is_in_the_navigation() -> None:
    listed = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    assert wrong_links(path) == []


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A head\n[a](page.md#a-head) [b](gone.md) [c](#nowhere) [d](https://example.org)\n")
    assert wrong_links(page) == ["page.md: gone.md", "page.md: #nowhere"]


def test_a_broken_link_of_the_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<h1 id="top">a</h1><a href="#top">1</a><a href="b.html#x">2</a>')
    (tmp_path / "b.html").write_text('<a href="index.html#top">1</a><img src="c.png"><a href="https://x.org">2</a>')
    assert builder.broken_links(tmp_path) == ["b.html: c.png", "index.html: b.html#x"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_prose_is_narrow(path: Path) -> None:
    lines = without_code(path.read_text(encoding="utf-8")).splitlines()
    wide = [line for line in lines if len(line) > 100 and not line.startswith(("|", "    "))]
    assert not wide


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.name)
def test_model_cards_open_with_use_numbers_and_limits(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    heads = [line for line in lines[:40] if line.startswith("## ")]
    assert heads[:3] == ["## Use", "## Numbers in short", "## Limits"]


# -- what is made of the code -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", sorted((DOCS / "concepts").glob("*.md")), ids=lambda path: path.stem)
def test_equation_maps_are_those_of_the_code(path: Path) -> None:
    checked = loaded(ROOT / "tests" / "test_equation_map.py")
    doc = importlib.import_module(f"metriloc.methods.{path.stem}").__doc__ or ""
    rows = builder.equation_rows(path.stem)
    assert [(equation, name) for equation, name, _ in rows] == checked.ROW.findall(doc)
    table = builder.filled(path.read_text(encoding="utf-8"))
    for equation, name, _ in rows:
        assert f"| {equation} | `{name}` |" in table


def test_the_api_page_has_every_public_name() -> None:
    page = builder.filled((DOCS / "api" / "index.md").read_text(encoding="utf-8"))
    entries = re.findall(r"^::: metriloc\.\S*?(\w+)$", page, re.M)
    assert entries == [name for name in metriloc.__all__ if not name.startswith("_")]


def test_every_example_is_on_its_page() -> None:
    page = builder.filled((DOCS / "examples.md").read_text(encoding="utf-8"))
    for path in (ROOT / "examples").glob("*.py"):
        assert path.read_text(encoding="utf-8").strip() in page
    for path in re.findall(r"`(notebooks/\S+\.ipynb)`", page):
        assert (ROOT / path).is_file(), path


def test_the_design_page_tells_the_levels_of_the_layer_test() -> None:
    levels = loaded(ROOT / "tests" / "test_layers.py").LEVELS
    rows = re.findall(r"^\| (`[^|]+) \| (\d+) \|", (DOCS / "design.md").read_text(encoding="utf-8"), re.M)
    told = {name: int(level) for names, level in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", names)}
    assert len(told) >= 15
    for name, level in told.items():
        if (ROOT / "metriloc" / name).exists() or (ROOT / "metriloc" / f"{name}.py").exists():
            assert levels[name] == level, f"docs/design.md puts {name} on level {level}"


def absent_names(code: str) -> list[str]:
    """What the imports of metriloc in a piece of Python ask for in vain."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "metriloc":
            try:
                module = importlib.import_module(node.module or "")
            except ModuleNotFoundError:
                found.append(str(node.module))
                continue
            found += [f"{node.module}.{a.name}" for a in node.names if not hasattr(module, a.name)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metriloc":
            found += [] if hasattr(importlib.import_module("metriloc"), node.attr) else [f"metriloc.{node.attr}"]
    return found


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_python_that_is_not_run_asks_for_names_that_exist(path: Path) -> None:
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
    assert [name for code in blocks for name in absent_names(code)] == []


def test_absent_names_are_found() -> None:
    code = "import metriloc\nfrom metriloc.localize import x\nfrom metriloc.choose import load, calibrated\nmetriloc.gone()"
    assert absent_names(code) == ["metriloc.localize", "metriloc.choose.calibrated", "metriloc.gone"]


# -- what is run ------------------------------------------------------------------------------------------------------
def test_alike() -> None:
    assert alike("0.62 m, reliable", "0.61 m, reliable") and alike("21 degrees", "22 degrees")
    assert not alike("0.63 m, reliable", "0.61 m, reliable") and not alike("0.61 m, doubtful", "0.61 m, reliable")


@pytest.mark.slow
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reference.jpg", "query.jpg", "reference.depth.png", "intrinsics.txt"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    space: dict[str, Any] = {}
    for code, told in re.findall(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", text, re.S | re.M):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, space)
        assert not told or alike(printed.getvalue(), told), printed.getvalue()


def test_files_for_hosts_and_tools_are_well_formed() -> None:
    for path in [ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml", *(ROOT / ".github").rglob("*.yml")]:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert any(step.get("run") == "bash .ci/run" for step in workflow["jobs"]["check"]["steps"])


def test_examples_of_docstrings_are_code() -> None:
    pytest.importorskip("griffe", reason="builds the site (extra docs)")
    fenced = loaded(ROOT / "tools" / "doc_examples.py").fenced
    assert fenced("A.\n\n>>> f(1)\n2\n>>> g()\n\nB.") == "A.\n\n```pycon\n>>> f(1)\n2\n>>> g()\n```\n\nB."
    assert fenced("Nothing >>> here.") == "Nothing >>> here."
