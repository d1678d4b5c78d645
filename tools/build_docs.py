"""The site of ``docs/``: fills its markers, builds it strictly, and looks for broken links.

    pip install ".[docs]" && python tools/build_docs.py

Markers are HTML comments, so that a page reads well without the site, too. Nothing that is made is committed.

| marker | what takes its place |
|---|---|
| ``equations: METHOD`` | the equation map that opens ``metriloc/methods/METHOD/__init__.py`` |
| ``api: MODULE`` | the documentation of every name in its ``__all__`` |
| ``examples`` | every file of ``examples/`` |
"""

from __future__ import annotations

import ast
import html.parser
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
_MARKER = re.compile(r"^<!-- (equations|api|examples)(?:: ([\w./]+))? -->$", re.MULTILINE)
_EQUATION = re.compile(r"^ *((?:Eq\.|Sec\.) \S+) +(metriloc(?:\.\w+)+) *(.*)$", re.MULTILINE)


def equation_rows(method: str) -> list[tuple[str, str, str]]:
    """(equation, function, what it says there) of the map in the docstring of a method; ValueError when it has none."""
    path = ROOT / "metriloc" / "methods" / method / "__init__.py"
    rows = _EQUATION.findall(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    if not rows:
        raise ValueError(f"{path.relative_to(ROOT)} opens with no equation map")
    return rows


def equation_table(method: str) -> str:
    """The equation map as a table; a third column only where the docstring says more than the two names."""
    rows = equation_rows(method)
    noted = any(note for _, _, note in rows)
    lines = ["| paper | code |" + (" what |" if noted else ""), "|---|---|" + ("---|" if noted else "")]
    for equation, dotted, note in rows:
        # a bar would end the cell
        lines.append(
            f"| {equation} | `{dotted}` |" + (f" `{note}` |".replace("|", "∣", note.count("|")) if noted else "")
        )
    return "\n".join(lines)


def api_entries(module_name: str) -> str:
    """One directive for every name in ``__all__``, at the place where it is defined, wherever that is today."""
    module = importlib.import_module(module_name)
    entries = []
    for name in module.__all__:
        found = getattr(module, name)
        if name.startswith("_"):
            continue
        home, qualified = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
        # a value or type alias does not know where it was defined: the builder follows the imports
        known = home.startswith("metriloc") and qualified
        entries.append(f"::: {home}.{qualified}" if known else f"::: {module_name}.{name}")
    return "\n\n".join(entries)


def examples() -> str:
    """Every example under its first line."""
    parts = []
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(text)) or path.stem).splitlines()[0].rstrip(".")
        parts.append(f"### {path.stem[:2]} {title}\n\n`examples/{path.name}`\n\n```python\n{text.strip()}\n```")
    return "\n\n".join(parts)


def filled(text: str) -> str:
    """The page with its markers filled."""

    def fill(marker: re.Match[str]) -> str:
        kind, argument = marker.groups()
        return {"equations": equation_table, "api": api_entries}[kind](argument) if argument else examples()

    return _MARKER.sub(fill, text)


def assemble(target: Path = PAGES) -> list[Path]:
    """Copy ``docs/`` to ``target`` with every marker filled; the pages."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target)
    pages = sorted(target.rglob("*.md"))
    for page in pages:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    return pages


class _Links(html.parser.HTMLParser):
    """What a page links to, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := found.get(name)))
        link = found.get("href" if tag in ("a", "link") else "src")
        if link:
            self.links.append(link)


def broken_links(site: Path = SITE) -> list[str]:
    """``page: link`` for every link of a built site that leads to no file or anchor of it; other hosts are not asked."""
    pages = {path: _Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    return sorted(set(broken))


def main() -> int:
    """Build; 1 when the builder warns or a link is broken."""
    sys.path.insert(0, str(ROOT))
    pages = assemble()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return 1
    broken = broken_links()
    for line in broken:
        print(f"broken link in {line}", file=sys.stderr)
    if not broken:
        print(f"{len(pages)} pages, no broken link: {SITE.relative_to(ROOT) / 'index.html'}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
