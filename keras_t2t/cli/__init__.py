"""The command line: `python -m keras_t2t` or `keras-t2t`."""

from keras_t2t.cli import analysis, exporting, predict, training
from keras_t2t.cli.app import main

__all__ = ["analysis", "exporting", "main", "predict", "training"]
