"""Training: one plain loop for every method, and what a recipe is made of.

A recipe is a function that returns a ``Run``; ``train`` runs it. A method is any ``nn.Module`` with the ``training_step``
of ``metriloc.types.Trainable``; if it also has ``save_pretrained(folder)``, its best weights are written, ready to use,
to OUT/weights. Training data are any object with ``BatchSource.batch``; a validation is any function of the module that
returns a ``Validation``. ``metriloc/recipes/toy.py`` shows all of it in a few dozen lines.
"""

from metriloc.overrides import override, settable_fields
from metriloc.training.batches import BatchSource, ShuffledBatches
from metriloc.training.config import (
    CONSTANT,
    WARM_UP,
    WARM_UP_COSINE,
    WARM_UP_EXPONENTIAL,
    OptimizerConfig,
    Run,
    Schedule,
    TrainingConfig,
)
from metriloc.training.loop import DivergedError, TrainingResult, train
from metriloc.training.randomness import generator_of, mix_seed
from metriloc.training.validation import Picture, Validation, Validator

__all__ = [
    # recipes
    "Run",
    "TrainingConfig",
    "OptimizerConfig",
    "Schedule",
    "CONSTANT",
    "WARM_UP",
    "WARM_UP_COSINE",
    "WARM_UP_EXPONENTIAL",
    "override",
    "settable_fields",
    # data and chance
    "BatchSource",
    "ShuffledBatches",
    "generator_of",
    "mix_seed",
    # validation
    "Picture",
    "Validation",
    "Validator",
    # the loop
    "DivergedError",
    "TrainingResult",
    "train",
]
