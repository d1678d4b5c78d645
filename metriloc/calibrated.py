"""Methods whose confidence is a probability: a method together with the calibrations that fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from metriloc.calibration import Calibration, load_calibration, packaged_calibrations
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.types import AbsolutePoseMethod, PoseEstimate, QueryNeeds, RelativePoseMethod, SfmMap, View, needs_of


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def weights_id(self) -> str: ...


def _check_fit(method: _Named, calibrations: Sequence[Calibration]) -> None:
    for found in calibrations:
        if (found.method, found.weights_id) != (method.name, method.weights_id):
            raise InputError(
                f"the calibration is for {found.method} {found.weights_id}, not for {method.name} {method.weights_id}"
            )


class CalibratedMethod:
    """A relative-pose method whose confidence is a probability and whose verdicts mean something.

    calibrations: of this method and these weights, one for each setup in which it may find a pose; an estimate of another
    setup stays uncalibrated. Raises InputError when one was fitted for other weights.
    """

    def __init__(self, method: RelativePoseMethod, *calibrations: Calibration) -> None:
        _check_fit(method, calibrations)
        self.method, self.calibrations = method, calibrations
        self.name, self.weights_id = method.name, method.weights_id

    def extract(self, view: Any) -> Any:
        """The method's own."""
        return self.method.extract(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """The method's estimate with a calibrated confidence, an interval of metres, and doubts."""
        features = [value if not isinstance(value, View) else self.extract(value) for value in (reference, query)]
        estimate = self.method.relative_pose(*features, seed=seed)
        setup = estimate.details[0].setup
        found = next((c for c in self.calibrations if c.setup == setup), None)
        return estimate if found is None else found.apply(estimate, [feature.view for feature in features])


class CalibratedLocalizer:
    """A localiser whose confidence is a probability and whose verdicts mean something.

    calibrations: of this method and these weights, one for each setup in which it may find a pose; an estimate of another
    setup stays uncalibrated. Raises InputError when one was fitted for something else.
    """

    def __init__(self, method: AbsolutePoseMethod, *calibrations: Calibration) -> None:
        _check_fit(method, calibrations)
        self.method, self.calibrations = method, calibrations
        self.name, self.weights_id = method.name, method.weights_id

    @property
    def settings(self) -> Any:
        """The method's own, where it has any."""
        return self.method.settings  # type: ignore[attr-defined]

    @property
    def published_names(self) -> Mapping[str, str]:
        """The method's own, where it has any."""
        return self.method.published_names  # type: ignore[attr-defined]

    def with_settings(self, settings: Any) -> CalibratedLocalizer:
        """The same calibrations around the method with other settings."""
        return self.around(self.method.with_settings(settings))  # type: ignore[attr-defined]

    @property
    def needs(self) -> QueryNeeds:
        """The method's own."""
        return needs_of(self.method)

    def localize(
        self,
        query: View,
        scene: SfmMap,
        references: Sequence[str],
        init: Pose | None = None,
        *,
        seed: int = 0,
        trace: bool = False,
        **more: Any,
    ) -> PoseEstimate:
        """The method's estimate, judged. more: what else the method takes, such as ``hints``."""
        asked = {**more, "trace": True} if trace else more
        return self.judge(self.method.localize(query, scene, references, init, seed=seed, **asked), query)

    def judge(self, estimate: PoseEstimate, query: View) -> PoseEstimate:
        """An estimate of the method with a calibrated confidence; one that is probably wrong has failed."""
        setup = estimate.localization[0].setup
        found = next((c for c in self.calibrations if c.setup == setup), None)
        return estimate if found is None else replace(found.apply(estimate, [query]), trace=estimate.trace)

    def around(self, method: AbsolutePoseMethod) -> CalibratedLocalizer:
        """The same calibrations around the method with other settings."""
        return CalibratedLocalizer(method, *self.calibrations)


def calibrations_of(method: RelativePoseMethod | AbsolutePoseMethod) -> tuple[Calibration, ...]:
    """What makes the confidence of a method a probability; empty when nothing does."""
    return method.calibrations if isinstance(method, CalibratedMethod | CalibratedLocalizer) else ()


_Method = TypeVar("_Method", RelativePoseMethod, AbsolutePoseMethod)


def bare(method: _Method) -> _Method:
    """The method without its calibrations."""
    return method.method if isinstance(method, CalibratedMethod | CalibratedLocalizer) else method


def calibrated_method(method: RelativePoseMethod, beside: Path | None = None) -> RelativePoseMethod:
    """A method for two photos, with the calibrations that fit it: ``beside`` its weights, else those of metriloc."""
    if isinstance(method, CalibratedMethod):
        return method
    found = fitting_calibrations(method, beside)
    return CalibratedMethod(method, *found) if found else method


def calibrated_localizer(method: AbsolutePoseMethod, beside: Path | None = None) -> AbsolutePoseMethod:
    """A localizer with the calibrations that fit it: ``beside`` its weights, else those that come with metriloc."""
    if isinstance(method, CalibratedLocalizer):
        return method
    found = fitting_calibrations(method, beside)
    return CalibratedLocalizer(method, *found) if found else method


def fitting_calibrations(method: _Named, beside: Path | None = None) -> tuple[Calibration, ...]:
    """The calibration in the file ``beside`` the weights of a method, else those that come with metriloc for them."""
    if beside is not None and beside.is_file():
        found = load_calibration(beside)
        if found.weights_id == method.weights_id:  # a user may have replaced the weights
            return (found,)
    return packaged_calibrations(method.name, method.weights_id)
