"""Turn a checkpoint of a training that still runs into weights that ``from_pretrained`` loads.

    python tools/export_checkpoint.py mickey_small RUN/checkpoints/last OUT

A finished run has written its own ``RUN/weights``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from metriloc import recipes
from metriloc.training.checkpoint import load_initial_weights


def main() -> None:
    """Build the module of the recipe, load the checkpoint, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=recipes.__all__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    method = getattr(recipes, arguments.recipe)().method()
    load_initial_weights(method, arguments.checkpoint)
    print(method.save_pretrained(arguments.out))


if __name__ == "__main__":
    main()
