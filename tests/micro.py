"""A variant that compiles quickly. `python -m tests.micro [SCRIPT]` is the command line, or a script, with this variant."""

import os
import pathlib
import runpy
import sys

import pytest

import keras_t2t
from keras_t2t import cli
from keras_t2t.variants import VARIANTS, Variant

MICRO = keras_t2t.T2TConfig(soft_splits=((3, 2, 1), (3, 2, 1)), token_dim=8, embed_dim=24, depth=1, num_heads=2, mlp_ratio=1.0)
COMMAND = [sys.executable, "-m", "tests.micro"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}


def add_micro(patch):
    """Adds the variant."""
    patch.setitem(VARIANTS, "micro", Variant(constructor="", config=MICRO, image_size=32, crop_fraction=1.0))


if __name__ == "__main__":
    add_micro(pytest.MonkeyPatch())
    if sys.argv[1].endswith(".py"):
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.argv[0] = "keras-t2t"
        cli.main()
