"""Chance as a pure function of (seed, step, part), so that a resumed run draws what the uninterrupted one would have.

Before every part of every step the generators are seeded anew: the one handed to ``training_step``, and the global ones
of torch (all devices), NumPy and Python for dropout and for what libraries draw. Hence no generator has to be saved.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix_seed(*numbers: int) -> int:
    """One seed in 0..2^63-1 from several whole numbers. Close tuples give unrelated seeds."""
    text = ",".join(str(int(number)) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with ``mix_seed(*numbers)``."""
    return torch.Generator().manual_seed(mix_seed(*numbers))


def seed_globally(*numbers: int) -> None:
    """Seed the global generators of torch (CPU and GPUs), NumPy and Python with ``mix_seed(*numbers)``."""
    seed = mix_seed(*numbers)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would take half a millisecond where CUDA sleeps
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global generator is the point)
    random.seed(seed)


@contextmanager
def private_randomness(device: torch.device) -> Iterator[None]:
    """Whatever happens inside, the global generators (of torch: the CPU's and ``device``'s) afterwards stand as before."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
