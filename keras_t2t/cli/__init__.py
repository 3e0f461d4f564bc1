"""The command line: `python -m keras_t2t` or `keras-t2t`."""

from keras_t2t.cli import analysis, deploy, training, weights
from keras_t2t.cli.app import main

__all__ = ["analysis", "deploy", "main", "training", "weights"]
