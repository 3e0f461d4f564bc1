"""From checkpoints to models."""

from keras_t2t.weights.assign import load_checkpoint

__all__ = ["load_checkpoint"]
