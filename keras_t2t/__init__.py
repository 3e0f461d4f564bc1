"""keras_t2t: Tokens-to-Token ViT (Yuan et al., ICCV 2021) for Keras 3 and TensorFlow."""

import importlib

from keras_t2t import analysis, deploy, layers
from keras_t2t.applications import (
    T2TViT,
    T2TViT7,
    T2TViT10,
    T2TViT12,
    T2TViT14,
    T2TViT14ResNeXt,
    T2TViT14SE,
    T2TViT14Wide,
    T2TViT16Ghost,
    T2TViT19,
    T2TViT24,
    T2TViTDense,
    T2TViTt14,
    T2TViTt19,
    T2TViTt24,
    T2TViTTiny32,
    ViTSmall16,
)
from keras_t2t.configs import T2TConfig
from keras_t2t.deploy import ExportError, ExportReport, export, optimize_for_inference
from keras_t2t.imagenet import decode_predictions, preprocess_input
from keras_t2t.models import config_of, labels_of, replace_head
from keras_t2t.weights import CheckpointError, DownloadError, LoadReport, load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DownloadError",
    "ExportError",
    "ExportReport",
    "LoadReport",
    "T2TConfig",
    "T2TViT",
    "T2TViT7",
    "T2TViT10",
    "T2TViT12",
    "T2TViT14",
    "T2TViT14ResNeXt",
    "T2TViT14SE",
    "T2TViT14Wide",
    "T2TViT16Ghost",
    "T2TViT19",
    "T2TViT24",
    "T2TViTDense",
    "T2TViTTiny32",
    "T2TViTt14",
    "T2TViTt19",
    "T2TViTt24",
    "ViTSmall16",
    "analysis",
    "config_of",
    "data",
    "decode_predictions",
    "deploy",
    "export",
    "labels_of",
    "layers",
    "load_checkpoint",
    "optimize_for_inference",
    "preprocess_input",
    "replace_head",
    "training",
]


def __getattr__(name):
    """Imports what needs TensorFlow, whatever the backend of Keras, only when it is asked for."""
    if name in ("data", "training"):
        return importlib.import_module(f"keras_t2t.{name}")
    raise AttributeError(f"module 'keras_t2t' has no attribute {name!r}")
