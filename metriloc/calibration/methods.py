"""What makes the confidence of a method a probability: calibrations that fit it, applied where it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metriloc.calibration.files import load_calibration, packaged_calibrations
from metriloc.calibration.probability import Calibration
from metriloc.io import InputError
from metriloc.types import PoseEstimate, View

Calibrations = tuple[Calibration, ...]
"""Of one method and one set of weights, each for one setup; without any, a confidence is no probability."""


def calibrations_for(name: str, weights_id: str, beside: Path | None = None) -> Calibrations:
    """What fits a method and its weights.

    - name, weights_id: of the method.
    - beside: a file beside the weights, which goes before what comes with metriloc. One of other weights is passed over: a
      user may have replaced them.

    Raises InputError for a file that is no calibration.

    >>> calibrations_for("xfeat", "unknown weights")
    ()
    """
    if beside is not None and beside.is_file():
        found = load_calibration(beside)
        if found.weights_id == weights_id:
            return (found,)
    return packaged_calibrations(name, weights_id)


def that_fit(name: str, weights_id: str, calibrations: Sequence[Calibration]) -> Calibrations:
    """The calibrations that a method was given.

    - name, weights_id: of the method.
    - calibrations: for it alone.

    Raises InputError when one was fitted for something else.

    >>> that_fit("xfeat", "abc", ())
    ()
    """
    for found in calibrations:
        if (found.method, found.weights_id) != (name, weights_id):
            raise InputError(f"the calibration is for {found.method} {found.weights_id}, not for {name} {weights_id}")
    return tuple(calibrations)


def judged(estimate: PoseEstimate, calibrations: Sequence[Calibration], views: Sequence[View]) -> PoseEstimate:
    """An estimate (batch shape ()) by the calibration of its setup.

    It gains a probability, an interval of metres, doubts. What is probably wrong has failed then; where no calibration was
    fitted for the setup, the estimate stays as it is.

    - estimate: of a method that knows no calibration.
    - calibrations: those of the method and its weights.
    - views: the photos that it rests on.

    >>> estimate = PoseEstimate.failure("no_photo")
    >>> judged(estimate, (), ()) is estimate
    True
    """
    setup = (estimate.details or estimate.localization)[0].setup
    found = next((c for c in calibrations if c.setup == setup), None)
    return estimate if found is None else replace(found.apply(estimate, views), trace=estimate.trace)


def calibrations_of(method: object) -> Calibrations:
    """What makes the confidence of a method a probability. Empty where nothing does.

    >>> calibrations_of("no method at all")
    ()
    """
    return tuple(getattr(method, "calibrations", ()))
