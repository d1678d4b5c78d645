"""What the README promises is run: its Python, its demo command, and the names it mentions."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from metriloc.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "metriloc" / "data" / "example"


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def command_after(marker: str) -> str:
    block = re.search(rf"<!-- {marker} -->\s*```bash\n(.*?)\n```", README, re.S)
    assert block is not None
    return block.group(1)


@pytest.mark.slow
def test_demo_command_ends_in_metres(capsys: pytest.CaptureFixture[str]) -> None:
    install, demo = command_after("demo").split(" && ")
    assert install == 'pip install ".[features,viz]"'
    assert demo.split() == ["metriloc", "demo"]
    assert run(demo.split()[1:]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    error = re.search(r"error: ([\d.]+) degrees in rotation, ([\d.]+) cm", shown)
    assert error is not None
    assert "metriloc-small" in README and "predicted depth" in shown
    assert float(error.group(1)) < 1  # the turn is 21 degrees, the baseline 61 cm
    assert float(error.group(2)) < 15
    assert run([*demo.split()[1:], "--method", "matching"]) == 0
    exact = re.search(r"error: ([\d.]+) degrees in rotation, ([\d.]+) cm", capsys.readouterr().out)
    assert exact is not None
    assert float(exact.group(1)) < 1 and float(exact.group(2)) < 5


def test_test_command_is_what_ci_runs() -> None:
    assert command_after("tests") == 'pip install -e ".[test]" && python -m pytest -n 2'


@pytest.mark.slow
def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reference.jpg", "query.jpg", "reference.depth.png", "intrinsics.txt"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        space: dict[str, object] = {}
        exec(block, space)
        assert space["estimate"].success  # type: ignore[attr-defined]


@pytest.mark.slow
def test_relpose_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = re.search(r"^metriloc relpose reference.jpg query1.*$", README, re.M)
    assert line is not None
    for name in ("reference.jpg", "reference.depth.png"):
        shutil.copy(EXAMPLE / name, tmp_path)
    for name in ("query1.jpg", "query2.jpg"):
        shutil.copy(EXAMPLE / "query.jpg", tmp_path / name)
    entry = (EXAMPLE / "intrinsics.txt").read_text()
    again = re.search(r"^query.jpg (.*)$", entry, re.M)
    assert again is not None
    copies = "".join(f"query{i}.jpg {again.group(1)}\n" for i in (1, 2))
    (tmp_path / "intrinsics.txt").write_text(entry + copies)
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(line.group(0))[1:]) == 0
    assert (tmp_path / "result" / "pose.json").is_file()


def test_commands_and_files_exist() -> None:
    code = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S) + re.findall(r"`([^`\n]+)`", README))
    commands = re.findall(r"(?:^|&& )metriloc ((?:weights )?[a-z]+)\b", code, re.M)
    assert len(commands) >= 5
    for command in commands:
        assert command in COMMANDS, command
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
