"""Settings of methods from texts, by our names and by those of published config files."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from metriloc.adjust import adjusted, shown_settings
from metriloc.field_docs import documented_fields
from metriloc.io import InputError
from metriloc.methods.matching.localizer import LocalizingConfig
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.settings import PUBLISHED_NAMES as NRE_NAMES
from metriloc.methods.nre.settings import NREConfig
from metriloc.methods.pixloc import PixLoc
from metriloc.methods.pixloc.settings import PUBLISHED_NAMES as PIXLOC_NAMES
from metriloc.overrides import override


def nre() -> NRE:
    return NRE(SimpleNamespace(name="a"), SimpleNamespace(name="b"), NREConfig(), "w")  # type: ignore[arg-type]


def test_fields_of_nre_by_both_names() -> None:
    method = adjusted(nre(), ["fine.longest_side=640", "p3p_sigma_max=3", "fine_sigma_min=0.5", "n_iter_p3p=77"])
    assert method.config.fine.longest_side == 640 and method.config.initialize.num_samples == 77
    assert method.config.coarse_gnc.sigmas == (3.0, 1.0, 0.8, 0.6)
    assert method.config.windows.gnc.sigmas == (2.0, 1.0, 0.8, 0.5)
    assert method.weights_id == "w" and adjusted(method, []) is method


def test_fields_of_pixloc_by_both_names() -> None:
    method = PixLoc.from_pretrained()
    changed = adjusted(method, ["num_dbs=2", "multiscale=1", "align.num_iters=9", "dR_stop_criteria=1", "min_track=1"])
    assert (changed.config.num_references, changed.config.image_scales, changed.config.min_track) == (2, (1,), 1)
    assert (changed.align.num_iters, changed.align.stop_rotation_deg) == (9, 1.0)
    grouped = adjusted(method, ["refinement.num_dbs=4", "optimizer.num_iters=3"])
    assert (grouped.config.num_references, grouped.align.num_iters) == (4, 3)
    resized = adjusted(method, ["features.preprocessing.resize=320"])
    assert resized.settings.resize is not None and resized.settings.resize.size == 320
    assert method.settings.resize is not None and method.settings.resize.size != 320
    assert resized.extractor.identity != method.extractor.identity


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["fine.longest=640"], "there is no field 'longest' in StageConfig; did you mean 'longest_side'"),
        (["fine.longest_side=wide"], "must be a whole number"),
        (["p3p_sigma_min=5"], "must not increase"),
        (["max_points"], "does not read FIELD=VALUE"),
        (["max_points[first]=3"], "it has no ends"),
    ],
)
def test_what_cannot_be_set(texts: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match="--set ") as raised:
        adjusted(nre(), texts)
    assert sentence in str(raised.value)


def test_a_method_without_settings() -> None:
    method = SimpleNamespace(name="own")
    with pytest.raises(InputError, match="own has no settings"):
        adjusted(method, ["a=1"])
    assert list(shown_settings(method)) == []


def test_every_published_name_is_a_field() -> None:
    for settings, names in ((NREConfig(), NRE_NAMES), (PixLoc.from_pretrained().settings, PIXLOC_NAMES)):
        known = {path for path, _, _ in documented_fields(settings)}
        assert {path.partition("[")[0] for path in names.values()} <= known


def test_every_setting_is_explained() -> None:
    for settings in (NREConfig(), PixLoc.from_pretrained().settings, LocalizingConfig()):
        assert [path for path, _, doc in documented_fields(settings) if not doc] == []
    lines = list(shown_settings(nre()))
    assert "fine.longest_side=800" in lines and max(map(len, lines)) <= 80
    assert any("(published: max_fine_imsize)" in line for line in lines)


def test_every_setting_can_be_set() -> None:
    """What ``--show`` prints, line by line, is what ``--set`` takes."""
    for method in (nre(), PixLoc.from_pretrained()):
        shown = [line for line in shown_settings(method) if not line.startswith(" ")]
        assert len(shown) >= len(list(documented_fields(method.settings)))
        for line in shown:
            assert adjusted(method, [line]).settings == method.settings, line


def test_own_fields_come_before_other_names() -> None:
    changed = override(NREConfig(), ["min_track=3"], aliases={"min_track": "max_points"})
    assert (changed.min_track, changed.max_points) == (3, 1000)
