"""From checkpoints to models."""

from keras_t2t.weights.assign import LoadReport, load_checkpoint
from keras_t2t.weights.errors import CheckpointError, DownloadError

__all__ = ["CheckpointError", "DownloadError", "LoadReport", "load_checkpoint"]
