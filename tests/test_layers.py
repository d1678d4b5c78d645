"""The layer rule of the architecture: a file imports from its own folder and from lower levels only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "metriloc"

LEVELS = {
    "version": 0,
    "geometry": 0,
    "bounds": 0,
    "wording": 0,
    "stopwatch": 0,
    "overrides": 0,
    "field_docs": 0,
    "children": 0,
    "ray_workers": 1,
    "types": 1,
    "solvers": 1,
    "backbones": 1,
    "io": 2,
    "calibration": 3,
    "page": 4,
    "adjust": 4,
    "methods/mickey": 4,
    "methods/pixloc": 4,
    "methods/nre": 4,
    "methods/matching": 4,
    "methods": 4,
    "datasets": 4,
    "turns": 5,
    "streams": 5,
    "mapping": 5,
    "auto": 6,
    "polish": 6,
    "export": 6,
    "training": 5,
    "evaluation": 6,
    "viz": 6,
    "opened_map": 6,
    "keepers": 5,
    "choose": 7,
    "answers": 7,
    "lessons": 7,
    "recipes": 8,
    "relpose": 8,
    "localizer": 8,
    "localization": 9,
    "fusion": 9,
    "tracking": 9,
    "runs": 10,
    "service": 11,
    "cli": 12,
    "__main__": 13,
}
RUNS_MAY = ("matching", "pixloc", "pixloc.hloc_hints", "pixloc.settings")
"""What runs/ takes from methods: retrieval of references, and what hloc knows of a query."""
HEAVY = (
    "kornia",
    "matplotlib",
    "poselib",
    "pycolmap",
    "huggingface_hub",
    "yaml",
    "pillow_heif",
    "tyro",
    "rich",
    "cv2",
    "ray",
    "transformers",
    "viser",
    "trimesh",
    "av",
    "rosbags",
    "fastapi",
    "sqlalchemy",
    "onnx",
    "onnxruntime",
)


def folder_of(parts: tuple[str, ...]) -> str:
    """The architectural folder of a module path below the package, e.g. ("methods", "mickey", "solver")."""
    if parts[0] == "methods" and len(parts) > 1 and f"methods/{parts[1]}" in LEVELS:
        return f"methods/{parts[1]}"
    return parts[0]


def imports_of(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """(line, module path below metriloc) of every import of the package itself, wherever in the file it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from metriloc import geometry` names the folder in the alias
            names = (
                [f"{node.module}.{a.name}" for a in node.names] if node.module == "metriloc" else [node.module or ""]
            )
        else:
            continue
        for name in names:
            parts = tuple(name.split("."))
            if parts[0] == "metriloc" and len(parts) > 1:
                found.append((node.lineno, parts[1:]))
    return found


def violations(path: Path) -> list[str]:
    own = folder_of(path.relative_to(PACKAGE).with_suffix("").parts)
    wrong = []
    for line, parts in imports_of(path):
        if parts[0] not in LEVELS:
            continue  # a name such as __version__ of the package itself
        other = folder_of(parts)
        if other != own and LEVELS[other] >= LEVELS[own]:
            wrong.append(f"{path}:{line}: {own} (L{LEVELS[own]}) imports {other} (L{LEVELS[other]})")
    return wrong


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def test_every_module_has_a_level() -> None:
    unknown = {folder_of(p.relative_to(PACKAGE).with_suffix("").parts) for p in modules()} - set(LEVELS)
    assert not unknown


def test_imports_point_down() -> None:
    assert [v for path in modules() for v in violations(path)] == []


def of_methods(folder: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """Imports of single methods in a folder, other than of the names that are allowed."""
    found = []
    for path in sorted((PACKAGE / folder).glob("*.py")):
        for line, parts in imports_of(path):
            if folder_of(parts).startswith("methods") and ".".join(parts[1:]) not in allowed:
                found.append(f"{path.name}:{line}: {'.'.join(parts)}")
    return found


def test_viz_knows_types_and_traces_and_no_method() -> None:
    assert of_methods("viz") == []
    assert of_methods("runs", RUNS_MAY) == []


def asked_for_a_method(path: Path) -> list[str]:
    """``isinstance(x, PixLoc)`` and the like."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            if names & {"PixLoc", "NRE", "MicKey", "MatchingLocalizer", "FeatureMatching"}:
                found.append(f"{path.name}:{node.lineno}")
    return found


@pytest.mark.parametrize("folder", ["cli", "runs", "viz", "evaluation"])
def test_nobody_asks_which_method_it_is(folder: str, tmp_path: Path) -> None:
    assert [found for path in (PACKAGE / folder).glob("*.py") for found in asked_for_a_method(path)] == []
    bad = tmp_path / "bad.py"
    bad.write_text("if isinstance(method, (int, PixLoc)): pass\n")
    assert asked_for_a_method(bad) == ["bad.py:1"]


def test_the_rule_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(violations.__globals__, "PACKAGE", tmp_path)
    bad = tmp_path / "geometry" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("def f():\n    from metriloc.io import images\n")
    assert len(violations(bad)) == 1


def test_geometry_needs_only_torch_and_numpy() -> None:
    allowed = {"torch", "numpy", "jaxtyping", "metriloc", *sys.stdlib_module_names}
    for path in (PACKAGE / "geometry").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n.split(".")[0] for n in names} <= allowed, path


def test_import_is_light_and_without_side_effects() -> None:
    code = (
        "import sys, torch; before = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.initial_seed());"
        "import metriloc; after = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.initial_seed());"
        f"assert before == after; print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def loaded_modules(code: str) -> set[str]:
    """What a fresh interpreter that runs the code has loaded at its end."""
    told = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.strip().splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["locate"], []])
def test_help_and_wrong_commands_import_no_torch(arguments: list[str]) -> None:
    code = f"from metriloc.cli.main import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    assert not loaded_modules(code) & {"torch", "numpy", "tyro", "rich", "PIL"}


def test_names_are_imported_when_they_are_asked_for() -> None:
    assert not loaded_modules("import metriloc") & {"torch", "numpy"}
    names = "import metriloc, metriloc.localization, metriloc.runs.localize\n"
    loaded_modules(names + "for name in metriloc.__all__: assert callable(getattr(metriloc, name)) or name[0] == '_'")


def test_every_public_name_has_a_home() -> None:
    import metriloc

    assert set(metriloc.__all__) == {"__version__", *metriloc._HOMES}
    assert all(getattr(metriloc, name) is not None for name in metriloc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'localise'"):
        _ = metriloc.localise
