"""Fields from the command line: every kind of value, and one sentence for everything that is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metriloc.overrides import flat, plain
from metriloc.recipes import toy
from metriloc.training import override, settable_fields


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    named: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    count: int = 1
    flag: bool = False
    word: Literal["red", "blue"] = "red"
    text: str = ""
    folder: Path | None = None
    limit: float | None = 1.0
    mixed: int | str = 0
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    table: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("count=7", 7),
        ("count=-3", -3),
        ("count=1e5", 100000),
        ("count=10_000", 10000),
        ("flag=true", True),
        ("flag=False", False),
        ("word=blue", "blue"),
        ("text=a=b, c", "a=b, c"),
        ("text=", ""),
        ("folder=/tmp/x", Path("/tmp/x")),
        ("folder=none", None),
        ("limit=none", None),
        ("limit=3", 3.0),
        ("mixed=12", 12),
        ("mixed=twelve", "twelve"),
        ("inner.rate=1e-4", 1e-4),
        ("inner.sizes=4,5,6", (4, 5, 6)),
        ("inner.sizes=", ()),
        ("inner.sizes=[7]", (7,)),
        ("inner.pair=3,0.5", (3, 0.5)),
        ('inner.named=[["a", 100], ["b.c", 0.5]]', (("a", 100.0), ("b.c", 0.5))),
    ],
)
def test_values_are_read_by_type(text: str, expected: object) -> None:
    value = override(Outer(), [text])
    for name in text.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "text, message",
    [
        ("count", "'count' does not read FIELD=VALUE"),
        ("=3", "does not read FIELD=VALUE"),
        ("count=1.5", "count must be a whole number, got '1.5'"),
        ("count=1e400", "count must be a whole number"),
        ("count=many", "count must be a whole number, got 'many'"),
        ("count=none", "count must be a whole number"),
        ("flag=1", "flag must be true or false, got '1'"),
        ("word=green", "word must be one of red, blue, got 'green'"),
        ("limit=fast", "limit must be a number, got 'fast'"),
        ("limit=nan", "limit must be a number"),
        ("cuont=1", "no field 'cuont' in Outer; did you mean 'count'?"),
        ("zzz=1", "there are count, flag"),
        ("count.more=1", "'count' has no fields of its own, it is 1"),
        ("inner=3", "inner is a group of fields: set them one by one, e.g. inner.rate=VALUE"),
        ("inner.rate=-1", "rate must not be negative, got -1.0"),
        ("inner.sizes=1,x", "inner.sizes\\[1\\] must be a whole number, got 'x'"),
        ("inner.sizes=[1,", "inner.sizes is not a JSON list"),
        ("inner.pair=1", "inner.pair must have 2 values, got 1"),
        ("maybe=3", "maybe cannot be set from the command line"),
        ("maybe.rate=3", "'maybe' has no fields of its own"),
        ("table=3", "table cannot be set from the command line"),
    ],
)
def test_wrong_ones_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        override(Outer(), [text])
    assert "\n" not in str(error.value)


def test_later_ones_win_and_the_original_stays() -> None:
    before = Outer()
    after = override(before, ["count=2", "inner.rate=0.5", "count=3"])
    assert (after.count, after.inner.rate, before.count, before.inner.rate) == (3, 0.5, 1, 0.1)


def test_every_field_of_a_recipe_can_be_set_to_what_it_is() -> None:
    run = toy()
    paths = dict(settable_fields(run))
    assert {"training.optimizer.lr", "method.width", "batches.batch_size", "validation.points"} <= paths.keys()
    texts = [
        f"{path}={value if isinstance(value, str) else json.dumps(plain(value)).replace('null', 'none')}"
        for path, value in paths.items()
    ]
    assert plain(override(run, texts)) == plain(run)


def test_a_function_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="method is a group"):
        override(toy(), ["method=x"])


def test_plain_values_survive_json_and_flatten() -> None:
    content = plain(toy())
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert flat(content)["training.optimizer.betas"] == [0.9, 0.999]
    assert flat(content)["method.type"] == "metriloc.recipes.toy.ToyMethod"
    assert plain(float("inf")) == "inf"
    assert plain(toy) == "metriloc.recipes.toy.toy"


@given(st.text(max_size=30))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    for path in ("count", "limit", "inner.sizes", "inner.named", "flag", "word"):
        try:
            override(Outer(), [f"{path}={text}", text])
        except ValueError:
            continue
