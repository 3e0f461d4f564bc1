"""T2T-ViT as a backbone for keras-cv's RetinaNet, YOLOV8Detector and DeepLabV3Plus.

Needs the extra `cv`: `pip install "keras-t2t[cv]"`. keras-cv is no longer developed, and its maintainers plan no further
releases. For new work, use `keras_t2t.hub` with KerasHub, its successor. keras-cv's SegFormer does not work here: it needs
attributes that only its own backbones have.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_t2t.configs import T2TConfig
from keras_t2t.extras import import_extra
from keras_t2t.models import normalize, normalizes, parts, preprocessing_of
from keras_t2t.models.pyramid import backbone_arguments, copy_backbone, encode_pyramid
from keras_t2t.preprocessing import Preprocessing

import_extra("keras_cv", "keras_t2t.cv needs keras-cv", "cv")

import keras_cv  # noqa: E402


@keras.saving.register_keras_serializable("keras_t2t.cv")
class T2TViTBackbone(keras_cv.models.Backbone):
    """A T2T-ViT without its classifier, for keras-cv. It takes the images that the model takes, such as values in [0, 255].

    The levels of `pyramid_level_inputs` are those of `keras_t2t.feature_pyramid`, up to P5.

    Args:
        config: Configuration of the model as a dictionary; see `keras_t2t.T2TConfig`.
        image_shape: `(height, width, channels)`. With `None` as height or width, the model takes images of any size.
        position_grid: Token grid `(h, w)` of the position table in the weights.
        preprocessing: How images are normalized, as a dictionary; see `keras_t2t.Preprocessing`.
        include_preprocessing: Whether the model normalizes its images itself.
        dtype: Dtype or dtype policy of every layer, or `None` for the global Keras policy.
        **kwargs: Arguments of `keras.Model`.

    Output shape:
        A dictionary of feature maps `(B, h, w, channels)` by level.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        image_shape: tuple[int | None, int | None, int],
        position_grid: tuple[int, int],
        preprocessing: Mapping[str, Any],
        include_preprocessing: bool = True,
        dtype: Any = None,
        **kwargs: Any,
    ):
        images = keras.Input(tuple(image_shape), name=parts.IMAGES)
        x = normalize(images, Preprocessing(**preprocessing), include_preprocessing, dtype)
        _, levels = encode_pyramid(x, T2TConfig(**config), position_grid, dtype)
        outputs = {name: keras.layers.Identity(name=f"{name}_output", dtype=dtype)(values) for name, values in levels.items()}
        super().__init__(inputs=images, outputs=outputs, **kwargs)
        self.pyramid_level_inputs = {name: f"{name}_output" for name in levels}
        self.arguments = {
            "config": dict(config),
            "image_shape": tuple(image_shape),
            "position_grid": tuple(position_grid),
            "preprocessing": dict(preprocessing),
            "include_preprocessing": include_preprocessing,
            "dtype": dtype if dtype is None or isinstance(dtype, str) else dtype.name,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}


def backbone(model: keras.Model, image_shape: tuple[int | None, int | None, int] | None = None) -> T2TViTBackbone:
    """Returns the backbone of a model as a keras-cv backbone, with a copy of its weights.

    Args:
        model: A model built by this package, with or without a classifier.
        image_shape: `(height, width, channels)` of the images. Defaults to that of `model`.

    Raises:
        ValueError: If the model was not built by this package, or if it has other layers in between.

    Example:

    >>> backbone = keras_t2t.cv.backbone(keras_t2t.T2TViT7(weights=None), image_shape=(64, 64, 3))
    >>> sorted(backbone.pyramid_level_inputs)
    ['P2', 'P3', 'P4', 'P5']
    """
    result = T2TViTBackbone(
        preprocessing=dataclasses.asdict(preprocessing_of(model)),
        include_preprocessing=normalizes(model),
        **backbone_arguments(model, image_shape),
    )
    copy_backbone(model, result)
    return result
