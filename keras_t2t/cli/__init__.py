"""The command line: `python -m keras_t2t` or `keras-t2t`."""

from keras_t2t.cli import analysis, evaluation, exporting, predict, study, training, weights
from keras_t2t.cli.app import main

__all__ = ["analysis", "evaluation", "exporting", "main", "predict", "study", "training", "weights"]
