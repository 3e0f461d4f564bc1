"""One image as the published accuracies were measured: resized, then cropped from the centre."""

import math
import os

import numpy as np
import tensorflow as tf

from keras_t2t.data.augment import decode


def default_crop(size: tuple[int, int]) -> float:
    """Returns the crop with which models for images of a size are usually measured: 0.9 of photographs, all of small ones."""
    return 0.9 if 100 < max(size) < 384 else 1.0


def evaluation_image(
    path: str | os.PathLike, size: tuple[int, int] = (224, 224), crop: float = 0.9, interpolation: str = "bicubic"
) -> np.ndarray:
    """Reads an image, resizes it until its shorter side is that of `size` over `crop`, and crops the centre.

    Decoding is that of PIL (libjpeg with its accurate transform). Resizing is antialiased as PIL's is, which rounds between the
    two directions: the results differ by less than half a grey level on average.

    Args:
        path: a JPEG, PNG, BMP, GIF or WebP file (of an animation, the first frame); grey images become RGB.
        size: (height, width) of the result.
        crop: side of the crop over the side of the resized image, in (0, 1].
        interpolation: a method of `tf.image.resize`.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: if the file is no image, or `crop` is not in (0, 1].
        OSError: if it cannot be read.
    """
    if not 0 < crop <= 1:
        raise ValueError(f"`crop` should be in (0, 1]. Received: crop={crop}")
    with open(path, "rb") as file:
        data = tf.constant(file.read())
    try:
        image = decode(data)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Cannot read {path}: expected a JPEG, PNG, BMP, GIF or WebP image") from error
    return np.asarray(tf.cast(evaluation_view(image, size, crop, interpolation), "uint8"))


def evaluation_view(pixels: tf.Tensor, size: tuple[int, int], crop: float, interpolation: str = "bicubic") -> tf.Tensor:
    """Returns the view (*size, 3) of pixels (H, W, 3) that `evaluation_image` describes, float32 in whole grey levels."""
    wanted = tf.constant([math.floor(side / crop) for side in size], "float32")
    old = tf.cast(tf.shape(pixels)[:2], "float32")
    new = tf.maximum(tf.cast(tf.round(old * tf.reduce_max(wanted / old)), "int32"), size)
    pixels = tf.image.resize(pixels, new, interpolation, antialias=True)
    top, left = tf.unstack((new - size) // 2)
    view = tf.ensure_shape(pixels[top : top + size[0], left : left + size[1]], (*size, 3))
    return tf.clip_by_value(tf.round(view), 0, 255)
