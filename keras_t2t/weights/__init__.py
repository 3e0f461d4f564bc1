"""Checkpoints and pretrained weights: reading files in any supported format and loading them into models."""

from keras_t2t.errors import CheckpointError, DownloadError
from keras_t2t.weights.loading import LoadReport, load_checkpoint
from keras_t2t.weights.registry import list_models

__all__ = ["CheckpointError", "DownloadError", "LoadReport", "list_models", "load_checkpoint"]
