"""Backbones assembled from a configuration, and classifiers on top of them."""

from keras_t2t.models.head import classify, labels_of, replace_head
from keras_t2t.models.t2t_vit import config_of, encode

__all__ = ["classify", "config_of", "encode", "labels_of", "replace_head"]
