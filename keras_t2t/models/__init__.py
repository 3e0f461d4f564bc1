"""Backbones assembled from a configuration."""

from keras_t2t.models.t2t_vit import IMAGE_SIZE, config_of, encode

__all__ = ["IMAGE_SIZE", "config_of", "encode"]
