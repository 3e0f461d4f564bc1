"""Backbones assembled from a configuration, and classifiers on top of them."""

from keras_t2t.models.head import classify, labels_of, replace_head
from keras_t2t.models.t2t_vit import IMAGE_SIZE, config_of, encode

__all__ = ["IMAGE_SIZE", "classify", "config_of", "encode", "labels_of", "replace_head"]
