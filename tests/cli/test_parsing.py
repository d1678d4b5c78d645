"""Words that cannot be understood are one sentence, whatever is wrong with them; --help is as it was."""

from __future__ import annotations

import pytest

from metriloc.cli.main import main
from metriloc.cli.parsing import sentence


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("map build a --out b --pairs x", "--pairs must be one of auto, all, similar, ordered, got 'x'"),
        ("map build a --out b --pairs", "--pairs has no value behind it"),
        ("map build a --out b --window -3", "window must be 1 to 1000, got -3"),
        ("relpose a.jpg b.jpg --seed x", "--seed must be a whole number, got 'x'"),
        ("relpose a.jpg b.jpg --bogus 3", "--bogus 3 is not understood"),
        ("map build", "PHOTOS and --out PATH are missing"),
        ("localize m q --num-references a", "--num-references must be none or INT, got 'a'"),
        ("eval mickey nothing --data x --out y", "benchmark must be one of mapfree, pairs, posed, scannet"),
    ],
)
def test_one_sentence(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == ""
    assert says in " ".join(told.err.split()) and "--help explains)" in " ".join(told.err.split())
    assert not set("╭│╰") & set(told.err)


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["map", "build", "--help"])
    assert stop.value.code in (0, None) and "--pairs" in capsys.readouterr().out


def test_what_nobody_has_a_wording_for_is_joined() -> None:
    box = "╭─ Odd ─╮\n│ Something is   │\n│ odd here.      │\n│ ────────────── │\n│ For full help  │\n╰────────────────╯\n"
    assert sentence(box) == "Something is odd here."
