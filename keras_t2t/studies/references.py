"""Convolutional networks for 32x32 images, to compare T2T-ViT with.

Sources: He et al., "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385), section 4.2 (ResNet-56);
Sandler et al., "MobileNetV2" (https://arxiv.org/abs/1801.04381), table 2.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_t2t.layers import ImageNormalization
from keras_t2t.models.graph import layers_of
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.variants import REFERENCE_NAMES

MOBILENET_CHANGES: dict[str, dict[str, Any]] = {
    "Conv1": {"strides": 1},
    "block_1_pad": {"padding": 0},
    "block_1_depthwise": {"strides": 1, "padding": "same"},
}
"""Changes to the layers of `keras.applications.MobileNetV2` that leave out its first two reductions, as is usual for 32x32."""

MOMENTUM = 0.9
"""Momentum of the moving averages in batch normalization.

Keras' MobileNetV2 has 0.999, which is too slow for runs of a few thousand steps: the validation accuracy would stay at chance.
"""


def resnet_56(images: Any, dtype: Any = None) -> Any:
    """Returns features `(B, 64)` of ResNet-56: three stages of nine basic blocks with 16, 32 and 64 channels."""

    def convolution(x, channels, kernel_size, strides=1):
        x = layers.Conv2D(channels, kernel_size, strides, "same", use_bias=False, kernel_initializer="he_normal", dtype=dtype)(
            x
        )
        return layers.BatchNormalization(momentum=MOMENTUM, dtype=dtype)(x)

    x = layers.ReLU(dtype=dtype)(convolution(images, 16, 3))
    for channels in (16, 32, 64):
        for block in range(9):
            strides = 2 if block == 0 and channels > 16 else 1
            shortcut = convolution(x, channels, 1, strides) if strides == 2 else x
            y = layers.ReLU(dtype=dtype)(convolution(x, channels, 3, strides))
            x = layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([shortcut, convolution(y, channels, 3)]))
    return layers.GlobalAveragePooling2D(dtype=dtype)(x)


def mobilenet_v2(images: Any, dtype: Any = None) -> Any:
    """Returns features `(B, 1280)` of MobileNetV2 with 0.57 times the channels, whose first two reductions are left out."""
    original = keras.applications.MobileNetV2(images.shape[1:], alpha=0.57, include_top=False, weights=None, pooling="avg")

    def adapted(layer):
        changes = {"dtype": dtype or layer.dtype_policy, **MOBILENET_CHANGES.get(layer.name, {})}
        if isinstance(layer, layers.BatchNormalization):
            changes["momentum"] = MOMENTUM
        return type(layer).from_config({**layer.get_config(), **changes})

    return keras.models.clone_model(original, clone_function=adapted)(images)


def convolution_macs(model: keras.Model) -> int:
    """Returns the multiply-accumulates of the convolutions and dense layers of a model for one image."""
    total = 0
    for layer in layers_of(model):
        if isinstance(layer, layers.DepthwiseConv2D):
            total += math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
        elif isinstance(layer, layers.Conv2D):
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


REFERENCES: dict[str, Callable[..., Any]] = dict(zip(REFERENCE_NAMES, (resnet_56, mobilenet_v2), strict=True))
"""Functions of normalized images `(B, H, W, 3)` and a dtype policy that return features `(B, D)`."""


def reference_backbone(name: str, preprocessing: Preprocessing, dtype: Any = None) -> keras.Model:
    """Returns a reference network without a head, which takes images with values in [0, 255] and returns features `(B, D)`.

    Args:
        name: A key of `REFERENCES`.
        preprocessing: How images are prepared. The model has its image size.
        dtype: Dtype policy of all layers.
    """
    images = keras.Input((*preprocessing.image_size, 3))
    features = REFERENCES[name](ImageNormalization(preprocessing, dtype=dtype)(images), dtype)
    return keras.Model(images, features, name=name)
