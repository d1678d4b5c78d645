"""What an estimate is worth: its support made a probability, its metres made an interval, both tested on other places.

A calibration is a small JSON file. It reads numbers that only grow with what speaks for a pose (agreeing matches, their
share, the part of the photo they cover, ...) and gives the probability that the pose is within stated bounds. It never
falls when support grows, and reads nothing beyond the range that it was fitted on. For distances in metres it has the
quantiles of true over estimated distance. It fits one method with all that made the estimate: weights and ``setup``
(solver, source of depth). Methods are given those of their weights when they are loaded, and apply them to what they
return. Fitting is :mod:`metriloc.evaluation.calibration`.
"""

from metriloc.calibration.files import CALIBRATION_FILE, load_calibration, save_calibration
from metriloc.calibration.methods import Calibrations, calibrations_for, calibrations_of, judged, that_fit
from metriloc.calibration.probability import Calibration, Kind, Metres, Target, feature_row

__all__ = [
    "CALIBRATION_FILE",
    "Calibration",
    "Calibrations",
    "Kind",
    "Metres",
    "Target",
    "calibrations_for",
    "calibrations_of",
    "feature_row",
    "judged",
    "load_calibration",
    "save_calibration",
    "that_fit",
]
