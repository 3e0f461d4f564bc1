"""The backbone of a T2T-ViT as a KerasHub backbone with feature maps at every scale."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import keras_hub

from keras_t2t.configs import T2TConfig, token_grid
from keras_t2t.models import parts
from keras_t2t.models.pyramid import backbone_arguments, copy_backbone, encode_pyramid
from keras_t2t.variants import find_variant


@keras.saving.register_keras_serializable("keras_t2t")
class T2TViTBackbone(keras_hub.models.FeaturePyramidBackbone):
    """A T2T-ViT without its classifier, for KerasHub.

    It takes normalized images, as KerasHub's backbones do; `T2TViTImageConverter` normalizes them. The `pyramid_outputs` are
    those of `keras_t2t.feature_pyramid`, up to at least P5.

    Args:
        config: A `keras_t2t.T2TConfig`, its fields as a dictionary, or the name of a variant such as `"t2t_vit_14"`.
        image_shape: `(height, width, channels)`. With `None` as height or width, the model takes images of any size.
        position_grid: Token grid `(h, w)` of the position table in the weights. For images of another size, the table is
            resized at run time. Defaults to the grid for `image_shape`, or for 224x224 pixels if that is unknown.
        dtype: Dtype or dtype policy of every layer, or `None` for the global Keras policy.
        **kwargs: Arguments of `keras_hub.models.Backbone`.

    Output shape:
        `(B, 1 + h * w, D)`: the normalized tokens, with the class token first.

    Example:

    >>> backbone = keras_t2t.hub.T2TViTBackbone("t2t_vit_7", image_shape=(64, 96, 3))
    >>> {name: tuple(tensor.shape[1:]) for name, tensor in backbone.pyramid_outputs.items()}
    {'P2': (16, 24, 64), 'P3': (8, 12, 64), 'P4': (4, 6, 256), 'P5': (2, 3, 256)}
    """

    def __init__(
        self,
        config: T2TConfig | Mapping[str, Any] | str,
        image_shape: tuple[int | None, int | None, int] = (None, None, 3),
        position_grid: tuple[int, int] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        architecture = _as_config(config)
        if position_grid is None:
            position_grid = token_grid(architecture.soft_splits, image_shape[0] or 224, image_shape[1] or 224)
        images = keras.Input(tuple(image_shape), name=parts.IMAGES)
        tokens, levels = encode_pyramid(images, architecture, position_grid, dtype)
        super().__init__(inputs=images, outputs=tokens, dtype=dtype, **kwargs)
        self.pyramid_outputs = levels
        self.config = dataclasses.asdict(architecture)
        self.image_shape = tuple(image_shape)
        self.position_grid = tuple(position_grid)

    def default_lora_layer_names(self) -> list[str]:
        """Returns the names of the dense layers of the attention and of the MLPs."""
        return ["qkv", "kqv", "projection", "fc1", "fc2"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config,
            "image_shape": self.image_shape,
            "position_grid": self.position_grid,
        }


def _as_config(config):
    if isinstance(config, T2TConfig):
        return config
    return T2TConfig(**config) if isinstance(config, Mapping) else find_variant(config).config


def backbone(model: keras.Model, image_shape: tuple[int | None, int | None, int] | None = None) -> T2TViTBackbone:
    """Returns the backbone of a model as a KerasHub backbone, with a copy of its weights.

    Args:
        model: A model built by this package, with or without a classifier.
        image_shape: `(height, width, channels)` of the images. Defaults to that of `model`.

    Raises:
        ValueError: If the model was not built by this package, or if it has other layers in between.
    """
    result = T2TViTBackbone(**backbone_arguments(model, image_shape))
    copy_backbone(model, result)
    return result
