"""Functions that assemble a model from a configuration, and functions that read information from a model."""

from keras_t2t.models.backbone import encode, normalize
from keras_t2t.models.head import classify, replace_head
from keras_t2t.models.parts import config_of, labels_of, normalizes, preprocessing_of, spec_of

__all__ = [
    "classify",
    "config_of",
    "encode",
    "labels_of",
    "normalize",
    "normalizes",
    "preprocessing_of",
    "replace_head",
    "spec_of",
]
