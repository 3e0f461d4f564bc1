"""Semantic segmentation: a model that classifies every pixel."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_t2t.configs import is_count, is_rate
from keras_t2t.layers import FastDense, Predictions, ResizeLike
from keras_t2t.layers.common import precise_dtype
from keras_t2t.models.head import class_count_and_labels
from keras_t2t.models.parts import HEAD, PREDICTIONS
from keras_t2t.models.pyramid import feature_pyramid


def segmenter(
    model: keras.Model,
    classes: int | Sequence[str],
    *,
    image_size: tuple[int | None, int | None] = (None, None),
    width: int = 128,
    drop_rate: float = 0.1,
    classifier_activation: Any = "softmax",
    name: str = "segmenter",
) -> keras.Model:
    """Returns a model that classifies every pixel of an image, with the backbone of another model.

    The head is the all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021, section 3.2), on the levels of
    `keras_t2t.feature_pyramid`: a dense layer gives every level the same width, the maps are resized to the finest one and
    concatenated, another dense layer with batch normalization mixes them, and a last one computes the logits, which are resized
    to the size of the image.

    Train it with `keras.losses.SparseCategoricalCrossentropy(ignore_class=...)` on masks `(B, H, W)` of class indices. For
    large images, use a variant with token performers; see `keras_t2t.feature_pyramid`.

    Args:
        model: A model built by `keras_t2t`. Its weights are copied: training one model does not change the other.
        classes: Number of classes, or a list of their names in the order of the labels. The new model stores the names.
        image_size: Height and width of the images. With `None`, the model takes images of any height or width. Exported files
            need a fixed size.
        width: Number of channels of every level in the head.
        drop_rate: Dropout rate before the last layer. Used in training only.
        classifier_activation: Activation of the outputs, or `None` to return logits.
        name: Name of the model.

    Returns:
        A functional `keras.Model` that maps images `(B, H, W, C)`, in the value range that `model` expects, to scores
        `(B, H, W, classes)` in at least float32.

    Raises:
        ValueError: If an argument is invalid, or if `model` was not built by `keras_t2t`.

    Example:

    >>> model = keras_t2t.segmenter(keras_t2t.T2TViTTiny32(weights="cifar10"), ["road", "sky", "tree"])
    >>> keras.ops.argmax(model(np.zeros((2, 60, 80, 3))), axis=-1).shape
    TensorShape([2, 60, 80])
    """
    count, labels = class_count_and_labels(classes)
    if not is_count(width) or not is_rate(drop_rate):
        raise ValueError(
            f"Expected a positive integer as width and a rate in [0, 1) as drop_rate; received: {width=}, {drop_rate=}"
        )
    pyramid = feature_pyramid(model, image_size=image_size)
    levels = pyramid.output
    finest = next(iter(levels.values()))
    dtype = pyramid.layers[-1].dtype_policy.name
    maps = []
    for level, features in levels.items():
        x = FastDense(width, name=f"{level}_projection", dtype=dtype)(features)
        maps.append(ResizeLike(name=f"{level}_resized", dtype=dtype)(x, finest))
    x = keras.layers.Concatenate(name="levels", dtype=dtype)(maps) if len(maps) > 1 else maps[0]
    x = FastDense(width, use_bias=False, name="mix", dtype=dtype)(x)
    x = keras.layers.BatchNormalization(name="mix_norm", dtype=dtype)(x)
    x = keras.layers.Activation("relu", name="mix_activation", dtype=dtype)(x)
    x = keras.layers.Dropout(drop_rate, name="head_dropout", dtype=dtype)(x)
    x = FastDense(count, name=HEAD, dtype=dtype)(x)
    x = ResizeLike(name="head_resized", dtype=dtype)(x, pyramid.input)
    scores = Predictions(classifier_activation, labels, name=PREDICTIONS, dtype=precise_dtype(x.dtype))(x)
    return keras.Model(pyramid.input, scores, name=name)
