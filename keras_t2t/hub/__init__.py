"""T2T-ViT as a KerasHub model: a backbone with presets, a classifier, and KerasHub's detector and segmenter on the backbone.

Needs the extra `hub`: `pip install "keras-t2t[hub]"`.
"""

from keras_t2t.extras import import_extra

import_extra("keras_hub", "keras_t2t.hub needs KerasHub", "hub")

from keras_t2t.hub.classification import (  # noqa: E402
    T2TViTImageClassifier,
    T2TViTImageClassifierPreprocessor,
    T2TViTImageConverter,
    classifier,
)
from keras_t2t.hub.dense_prediction import deeplab, detector  # noqa: E402
from keras_t2t.hub.pyramid_backbone import T2TViTBackbone, backbone  # noqa: E402

__all__ = [
    "T2TViTBackbone",
    "T2TViTImageClassifier",
    "T2TViTImageClassifierPreprocessor",
    "T2TViTImageConverter",
    "backbone",
    "classifier",
    "deeplab",
    "detector",
]
