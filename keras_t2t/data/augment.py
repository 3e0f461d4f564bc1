"""Random augmentation of individual images. All functions are pure functions of the image and of random numbers.

Source: section 4.1 of the paper, which adopts the augmentation of DeiT (Touvron et al. 2021, table 9).
"""

import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_t2t.data.decoding import decode_file
from keras_t2t.data.orientation import as_one_operation, jpeg_orientation, stored_window, upright, upright_sides
from keras_t2t.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from keras_t2t.recipes import Augmentation

compiled = functools.partial(tf.function, autograph=False, jit_compile=True)
"""Compiles a function with XLA, so that it makes one pass over the pixels instead of one per operation.

The images must all have the same size.
"""


def random_crop(image: tf.Tensor, size: tuple[int, int], augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Takes a random crop of an image and resizes it, as `augmentation.crop_mode` specifies.

    With `"resized"`, only the part of a JPEG that is needed is decoded.

    Args:
        image: The bytes of an image file, or pixels of shape `(H, W, 3)` or `(H, W, 1)`.
        size: `(height, width)` of the result.
        augmentation: The crop settings and `interpolation` to use.
        seed: Integer tensor of shape `(2,)`.

    Returns:
        Tensor of shape `(*size, 3)` with values in gray levels, which are not necessarily whole numbers.
    """
    if augmentation.crop_mode == "resized":
        return _random_resized_crop(image, size, augmentation, seed)
    pixels = resize_view(decode_file(image), size, augmentation.interpolation)
    if augmentation.crop_mode == "padded":
        padding = augmentation.crop_padding
        pixels = tf.pad(pixels, [[padding, padding], [padding, padding], [0, 0]])
        pixels = tf.image.stateless_random_crop(pixels, (*size, 3), seed)
    return pixels


def _random_resized_crop(image, size, augmentation, seed):
    def window(shape):
        return random_window(shape, augmentation.crop_scale, augmentation.crop_ratio, seed)

    def crop_jpeg():
        orientation, shape = jpeg_orientation(image), tf.io.extract_jpeg_shape(image)

        def crop_turned(image, orientation, shape):
            sides = upright_sides(shape[:2], orientation)
            stored = stored_window(window(sides), sides, orientation)
            return upright(tf.image.decode_and_crop_jpeg(image, stored, 3), orientation)

        return tf.cond(
            orientation == 1,
            lambda: tf.image.decode_and_crop_jpeg(image, window(shape), 3),
            lambda: as_one_operation(crop_turned, image, orientation, shape),
        )

    def crop_pixels(image):
        pixels = decode_file(image)
        return cut(pixels, window(tf.shape(pixels)))

    if image.dtype == tf.string:
        crop = tf.cond(tf.io.is_jpeg(image), crop_jpeg, lambda: as_one_operation(crop_pixels, image))
    else:
        crop = crop_pixels(image)
    return resize_view(crop, size, augmentation.interpolation)


def random_window(shape: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Picks the window of a random crop (Szegedy et al. 2015).

    The area, as a fraction of the image's area, is uniform in `scale`. The logarithm of the aspect ratio (width / height) is
    uniform between the logarithms of `ratio`. The first of ten windows that fits is used. If none fits, the window is centered.

    Args:
        shape: Shape of the image, as a tensor that starts with the height and width.
        scale: Minimum and maximum area as a fraction of the image's area.
        ratio: Minimum and maximum aspect ratio.
        seed: Integer tensor of shape `(2,)`.

    Returns:
        `(top, left, height, width)` as an int32 tensor of shape `(4,)`.
    """
    return _window(shape, scale, ratio, tf.random.stateless_uniform((2, 11), seed))


@compiled
def _window(shape, scale, ratio, draws):
    sides = tf.cast(shape[:2], "float32")
    low, high = tf.constant([scale[0], math.log(ratio[0])])[:, None], tf.constant([scale[1], math.log(ratio[1])])[:, None]
    area, log_ratio = tf.unstack(low + (high - low) * draws[:, :10])
    area = area * tf.reduce_prod(sides)
    extents = tf.round(tf.sqrt([area * tf.exp(-log_ratio), area * tf.exp(log_ratio)]))  # (2, 10): heights and widths
    fits = tf.reduce_all((extents >= 1) & (extents <= sides[:, None]), 0)
    any_fits = tf.reduce_any(fits)
    central = tf.round(tf.minimum(sides, sides[::-1] * [1 / ratio[0], ratio[1]]))
    extent = tf.where(any_fits, tf.gather(extents, tf.argmax(fits), axis=1), central)
    margin = sides - extent
    begin = tf.where(any_fits, tf.floor(draws[:, 10] * (margin + 1)), tf.floor(margin / 2))
    return tf.cast(tf.concat([begin, extent], 0), "int32")


def cut(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns the window `(top, left, height, width)` of pixels `(H, W, C)`."""
    top, left, height, width = tf.unstack(window)
    return pixels[top : top + height, left : left + width]


def resize_view(pixels: tf.Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> tf.Tensor:
    """Resizes `(H, W, 3)` to `(*size, 3)`, with antialiasing if it has more than four times as many pixels as the result."""
    if tuple(pixels.shape[:2]) != tuple(size):
        shrinks = tf.size(pixels) > 4 * 3 * size[0] * size[1]
        resize = functools.partial(tf.image.resize, pixels, size, interpolation)
        pixels = tf.cond(shrinks, lambda: resize(antialias=True), resize)
    return tf.ensure_shape(pixels, (*size, 3))


def to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Rounds gray levels, clips them to [0, 255] and casts them to uint8."""
    return values if values.dtype == "uint8" else tf.cast(tf.clip_by_value(tf.round(values), 0, 255), "uint8")


def flip(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Flips an image `(H, W, C)` horizontally if `draw`, a random number in [0, 1), is below 0.5."""
    return tf.where(draw < 0.5, tf.reverse(image, [1]), image)


def erase(image: tf.Tensor, prob: float, draws: tf.Tensor) -> tf.Tensor:
    """Replaces a random rectangle with noise that has ImageNet's mean and std (Zhong et al. 2020).

    The rectangle covers 1/50 to 1/3 of the image, with an aspect ratio from 3/10 to 10/3. All images share one noise image,
    shifted cyclically by random distances, because drawing that many random numbers takes longer than everything else.

    Args:
        image: Uint8 tensor of shape `(H, W, 3)`.
        prob: Probability of erasing a rectangle.
        draws: Random numbers in [0, 1), shape `(7,)`: whether to erase, the rectangle's area, aspect ratio, y and x, and the
            distances by which the noise is shifted along y and x.

    Returns:
        Uint8 tensor of shape `(H, W, 3)`.
    """

    def erased():
        height, width, _ = image.shape
        noise = tf.roll(_noise(height, width), tf.cast(draws[5:] * [float(height), float(width)], "int32"), [0, 1])
        return tf.where(_random_rectangle(height, width, draws[1:5]), noise, image)

    return tf.cond(draws[0] < prob, erased, lambda: image)


@functools.cache
def _noise(height, width):
    """Returns noise `(height, width, 3)` from beta distributions, which have ImageNet's mean and std and stay in range."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    concentration = mean * (1 - mean) / std**2 - 1
    noise = np.random.default_rng(0).beta(mean * concentration, (1 - mean) * concentration, (height, width, 3))
    return np.rint(255 * noise).astype("uint8")


def _random_rectangle(height, width, draws):
    """Returns the mask of a random rectangle. `draws` determine its area, aspect ratio, y and x."""
    sides = tf.constant([height, width], "float32")
    area = (1 / 50 + draws[0] * (1 / 3 - 1 / 50)) * tf.reduce_prod(sides)
    ratio = tf.exp((2 * draws[1] - 1) * math.log(10 / 3))
    extent = tf.minimum(tf.round(tf.sqrt([area * ratio, area / ratio])), sides)
    begin = tf.floor(draws[2:] * (sides - extent + 1))
    (top, left), (bottom, right) = tf.unstack(begin), tf.unstack(begin + extent)
    return rectangle_mask(height, width, top, left, bottom, right)


def rectangle_mask(height: int, width: int, top: Any, left: Any, bottom: Any, right: Any) -> tf.Tensor:
    """Returns a boolean mask `(height, width, 1)` that is true inside a rectangle; `bottom` and `right` are exclusive."""
    rows, columns = tf.range(float(height))[:, None, None], tf.range(float(width))[:, None]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
