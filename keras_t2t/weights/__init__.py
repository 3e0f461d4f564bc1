"""Checkpoints and pretrained weights: reading files in any supported format and loading them into models."""

from keras_t2t.errors import CheckpointError, DownloadError
from keras_t2t.weights.loading import LoadReport, load_checkpoint

__all__ = ["CheckpointError", "DownloadError", "LoadReport", "load_checkpoint"]
