"""Functions that assemble a model from a configuration, and functions that read information from a model."""

from keras_t2t.models.encoding import encode, normalize
from keras_t2t.models.head import classify, replace_head
from keras_t2t.models.parts import config_of, labels_of, normalizes, preprocessing_of, spec_of
from keras_t2t.models.pyramid import feature_pyramid, pyramid_levels
from keras_t2t.models.segmentation import segmenter

__all__ = [
    "classify",
    "config_of",
    "encode",
    "feature_pyramid",
    "labels_of",
    "normalize",
    "normalizes",
    "preprocessing_of",
    "pyramid_levels",
    "replace_head",
    "segmenter",
    "spec_of",
]
