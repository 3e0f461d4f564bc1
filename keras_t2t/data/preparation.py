"""Preparing images for prediction and evaluation."""

import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_t2t.data.decoding import decode_file
from keras_t2t.data.problems import describe_problem
from keras_t2t.models import spec_of
from keras_t2t.preprocessing import ModelSpec, Preprocessing
from keras_t2t.runtime import Runtime

MAX_ELONGATION = 64
"""Images of up to this aspect ratio, relative to that of the view, are resized as a whole."""


def center_view(pixels: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    """Resizes an image and crops its center; see `Preprocessing`.

    Args:
        pixels: Tensor of shape `(H, W, 3)` with values in [0, 255].
        preprocessing: Settings for `image_size`, `crop_fraction` and `interpolation`.

    Returns:
        Float32 tensor of shape `(*image_size, 3)` with whole numbers in [0, 255].
    """
    size = preprocessing.image_size
    pixels = _without_ends(pixels, MAX_ELONGATION * max(size) // min(size))
    least = tf.constant([math.floor(side / preprocessing.crop_fraction) for side in size], "float32")
    old = tf.cast(tf.shape(pixels)[:2], "float32")
    new = tf.maximum(tf.cast(tf.round(old * tf.reduce_max(least / old)), "int32"), size)
    pixels = tf.cast(tf.image.resize(pixels, new, preprocessing.interpolation, antialias=True), "float32")
    top, left = tf.unstack((new - size) // 2)
    view = tf.ensure_shape(pixels[top : top + size[0], left : left + size[1]], (*size, 3))
    return tf.clip_by_value(tf.round(view), 0, 255)


def _without_ends(pixels, ratio):
    """Cuts off the ends of an image `(H, W, 3)` that is more than `ratio` times as long as it is wide.

    The center crop does not show them, but resizing them can take more memory than there is.
    """
    old = tf.shape(pixels)[:2]
    new = tf.minimum(old, ratio * tf.reduce_min(old))
    top, left = tf.unstack((old - new) // 2)
    return pixels[top : top + new[0], left : left + new[1]]


def read_view(path: str | os.PathLike, preprocessing: Preprocessing) -> np.ndarray:
    """Reads an image file and returns its center view, before normalization.

    Decoding matches Pillow (libjpeg with its accurate transform). Resizing is antialiased as in Pillow, but Pillow also rounds
    between resizing the two axes, so the results differ by less than half a gray level on average.

    Args:
        path: Path of a JPEG, PNG, BMP, GIF or WebP file, or, if Pillow is installed, of any other image that it can read, such
            as TIFF and AVIF. HEIC needs pillow-heif, too. The EXIF orientation is applied, and transparent images get a white
            background. Only the first frame of an animation is read. Grayscale images are converted to RGB.
        preprocessing: How to resize and crop; see `center_view`.

    Returns:
        Uint8 array of shape `(*image_size, 3)`.

    Raises:
        ValueError: If the file cannot be decoded. The message says why.
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        data = tf.constant(file.read())
    try:
        pixels = decode_file(data)
    except tf.errors.OpError as error:
        raise ValueError(f"Cannot read {path}: {describe_problem(path)}") from error
    return np.asarray(tf.cast(center_view(pixels, preprocessing), "uint8"))


def normalize_images(images: Any, preprocessing: Preprocessing) -> Any:
    """Normalizes images for a model that was built with `include_preprocessing=False`.

    This function also works in `tf.data.Dataset.map`, on any Keras backend.

    Args:
        images: Array or TensorFlow tensor of shape `(..., C)` with values in [0, 255], of any dtype.
        preprocessing: Settings for `mean` and `std`; see `keras_t2t.preprocessing_of`.

    Returns:
        The normalized images `(images / 255 - mean) / std` in float32: a tensor if `images` is a tensor, otherwise an array.

    Example:

    >>> model = keras_t2t.T2TViT7(weights=None, include_preprocessing=False)
    >>> images = keras_t2t.normalize_images(np.zeros((1, 224, 224, 3), "uint8"), keras_t2t.preprocessing_of(model))
    >>> images[0, 0, 0].round(3).tolist()
    [-2.118, -2.036, -1.804]
    """
    images = tf.cast(images, "float32") if tf.is_tensor(images) else np.asarray(images, "float32")
    return images * np.array(preprocessing.scale, "float32") + np.array(preprocessing.offset, "float32")


def as_input(views: np.ndarray, spec: ModelSpec, dtype: str = "float32") -> np.ndarray:
    """Converts RGB views to the input that a model expects.

    Args:
        views: Array of shape `(n, H, W, 3)` with values in [0, 255].
        spec: Description of what the model expects.
        dtype: Dtype of the result, `"float32"` or `"uint8"`.

    Returns:
        Array of shape `(n, H, W, C)`. It is in grayscale if the model expects 1 channel, and normalized unless the model does
        that itself.

    Raises:
        ValueError: If the model expects images that have neither 1 nor 3 channels.
    """
    channels = spec.preprocessing.channels
    if channels not in (1, 3):
        raise ValueError(f"Expected a model for RGB or grayscale images; this one takes images with {channels} channels")
    images = views.astype("float32")
    if channels == 1:
        images = np.asarray(tf.image.rgb_to_grayscale(images))
    images = images if spec.normalizes else normalize_images(images, spec.preprocessing)
    return (np.round(images) if dtype == "uint8" else images).astype(dtype)


def load_image(path: str | os.PathLike, model: keras.Model | Runtime, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Reads an image file and prepares it in the same way as for the evaluation of a model.

    Args:
        path: Path of an image file; see `keras_t2t.data.read_view` for the formats.
        model: A model built by this package, or an exported model opened by `keras_t2t.open_exported`.
        preprocessing: How to resize and crop. Defaults to `keras_t2t.preprocessing_of(model)`. It does not affect
            normalization.

    Returns:
        Array of shape `(1, H, W, C)`, ready for `model.predict`.

    Raises:
        ValueError: If the file cannot be decoded, or if the model was not built by this package.
        OSError: If the file cannot be read.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> keras_t2t.load_image("examples/images/frog.jpg", model).shape
    (1, 32, 32, 3)
    """
    return load_images([path], model, preprocessing)


def check_several(paths: Any) -> None:
    """Raises `ValueError` if `paths` is a single path, because iterating over a string gives its characters."""
    if isinstance(paths, (str, os.PathLike)):
        raise ValueError(f"Expected several paths, such as a list of them; received the path {str(paths)!r}")


def load_images(
    paths: Sequence[str | os.PathLike], model: keras.Model | Runtime, preprocessing: Preprocessing | None = None
) -> np.ndarray:
    """Reads image files and prepares them for a model; see `load_image`.

    Returns:
        Array of shape `(len(paths), H, W, C)`.

    Raises:
        ValueError: If `paths` is a single path.
    """
    check_several(paths)
    spec = model.spec if isinstance(model, Runtime) else spec_of(model)
    dtype = model.input_dtype if isinstance(model, Runtime) else "float32"
    preprocessing = preprocessing or spec.preprocessing
    views = np.zeros((len(paths), *preprocessing.image_size, 3), "uint8")
    for view, path in zip(views, paths, strict=True):
        view[:] = read_view(path, preprocessing)
    return as_input(views, spec, dtype)
