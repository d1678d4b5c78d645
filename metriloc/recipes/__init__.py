"""Complete runs, as functions that return a ``metriloc.training.Run``; ``metriloc train NAME`` runs one.

A recipe is a public function listed in ``__all__``; its name says what it reproduces, its first line what it is.
"""

from metriloc.recipes.metric_depth import metric_depth, metric_depth_clean
from metriloc.recipes.mickey_published import (
    curriculum_learning,
    mickey_curriculum,
    mickey_curriculum_warm_up,
    mickey_overlap,
    mickey_overlap_warm_up,
    overlap_score,
)
from metriloc.recipes.mickey_small import mickey_small
from metriloc.recipes.nre import nre_coarse, nre_fine, nre_small
from metriloc.recipes.pixloc import pixloc_small, pixloc_small_all
from metriloc.recipes.pixloc_published import gnnet, pixloc_cmu, pixloc_megadepth
from metriloc.recipes.toy import toy

__all__ = [
    "curriculum_learning",
    "gnnet",
    "metric_depth",
    "metric_depth_clean",
    "mickey_curriculum",
    "mickey_curriculum_warm_up",
    "mickey_overlap",
    "mickey_overlap_warm_up",
    "mickey_small",
    "nre_coarse",
    "nre_fine",
    "nre_small",
    "overlap_score",
    "pixloc_cmu",
    "pixloc_megadepth",
    "pixloc_small",
    "pixloc_small_all",
    "toy",
]

PUBLISHED_NAMES = {
    "curriculum_learning_warm_up": "mickey_curriculum_warm_up",
    "overlap_score_warm_up": "mickey_overlap_warm_up",
    "train_gnnet_cmu": "gnnet",
    "train_pixloc_cmu": "pixloc_cmu",
    "train_pixloc_megadepth": "pixloc_megadepth",
}
"""Other published names of recipes; those of files may also stand with their folder and ending."""
