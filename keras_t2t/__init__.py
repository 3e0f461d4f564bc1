"""keras_t2t: Tokens-to-Token ViT (Yuan et al., ICCV 2021) for Keras 3 and TensorFlow."""

import pathlib as _pathlib
import sys as _sys
from typing import Any as _Any


def _is_command_line() -> bool:
    """Returns whether Python imports this package in order to start its command line."""
    program = next(iter(_sys.argv), "")  # embedded interpreters may have no arguments
    if program == "-m":  # runpy is looking for the module; its name precedes the arguments
        return _sys.orig_argv[-len(_sys.argv)] == "keras_t2t"
    return _pathlib.Path(program).stem == "keras-t2t"


if not _is_command_line():  # the commands import what they need, so that help and errors need not wait for TensorFlow
    from keras_t2t import analysis, layers
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
    from keras_t2t.errors import CheckpointError, DataError, DownloadError, ExportError, TrainingError
    from keras_t2t.exporting import ExportReport, export, open_exported
    from keras_t2t.imagenet import decode_predictions, preprocess_input
    from keras_t2t.inference import optimize_for_inference, predict_images
    from keras_t2t.models import config_of, feature_pyramid, labels_of, preprocessing_of, replace_head, segmenter
    from keras_t2t.preprocessing import Preprocessing
    from keras_t2t.registry import list_models
    from keras_t2t.sharing import push_to_hub
    from keras_t2t.variants import VARIANTS
    from keras_t2t.weights import LoadReport, load_checkpoint

__version__ = "0.1.0"

_LAZY = {"cv": None, "data": None, "hub": None, "training": None, "load_image": "data", "normalize_images": "data"}
"""Public names that need TensorFlow on any Keras backend, or optional packages, so they are imported lazily.

Modules map to `None`. Other names map to the module that defines them.
"""

__all__ = [
    "VARIANTS",
    "CheckpointError",
    "DataError",
    "DownloadError",
    "ExportError",
    "ExportReport",
    "LoadReport",
    "Preprocessing",
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
    "TrainingError",
    "ViTSmall16",
    "analysis",
    "config_of",
    "cv",
    "data",
    "decode_predictions",
    "export",
    "feature_pyramid",
    "hub",
    "labels_of",
    "layers",
    "list_models",
    "load_checkpoint",
    "load_image",
    "normalize_images",
    "open_exported",
    "optimize_for_inference",
    "predict_images",
    "preprocess_input",
    "preprocessing_of",
    "push_to_hub",
    "replace_head",
    "segmenter",
    "training",
]


def __getattr__(name: str) -> _Any:
    """Imports the names in `_LAZY` on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'keras_t2t' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"keras_t2t.{_LAZY[name] or name}")
    return module if _LAZY[name] is None else getattr(module, name)
