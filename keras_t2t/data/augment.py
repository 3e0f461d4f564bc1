"""Random changes of single images, each a pure function of the image and random numbers.

Sources: section 4.1 of the paper, which takes its augmentation from DeiT (Touvron et al. 2021, table 9).
"""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from keras_t2t.data.decoding import decode
from keras_t2t.preprocessing import IMAGENET_MEAN, IMAGENET_STD

CROPS = ("resized", "padded", "none")

compiled = functools.partial(tf.function, jit_compile=True)
"""Makes one pass over the pixels of a function that would be one for each operation; it takes pixels of one size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to training images.

    Attributes:
        crop_mode: `"resized"`: a random part of the image, resized; `"padded"`: the resized image, shifted over a margin of
            zeros; `"none"`: the resized image.
        crop_scale: least and greatest part of the image's area, with `"resized"`.
        crop_ratio: least and greatest width over height, with `"resized"`.
        crop_padding: pixels of the margin, with `"padded"`.
        interpolation: method of `tf.image.resize`. timm draws `"bilinear"` or `"bicubic"`; the first takes half the time.
        flip: whether to mirror half of the images.
        rand_augment_num_ops: changes of RandAugment for each image; 0 for none.
        rand_augment_magnitude: their strength, 0 to 10.
        rand_augment_magnitude_std: standard deviation of the strength.
        random_erase_prob: part of the images in which a rectangle becomes noise.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        mixup_prob: part of the batches that are mixed.
        mixup_switch_prob: part of the mixed batches that are mixed by CutMix, if there are both.
        label_smoothing: part of the target that is spread over all classes.
    """

    crop_mode: str = "resized"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    interpolation: str = "bilinear"
    flip: bool = True
    rand_augment_num_ops: int = 2
    rand_augment_magnitude: float = 9.0
    rand_augment_magnitude_std: float = 0.5
    random_erase_prob: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    label_smoothing: float = 0.1


def random_crop(image: tf.Tensor, size: tuple[int, int], augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Returns a random view (*size, 3) of an encoded image or of pixels, in gray levels that need not be whole.

    A JPEG is decoded only where the view needs it.
    """
    if augmentation.crop_mode == "resized":
        return _random_resized_crop(image, size, augmentation, seed)
    pixels = _resize(decode(image), size, augmentation.interpolation)
    if augmentation.crop_mode == "padded":
        margin = augmentation.crop_padding
        pixels = tf.pad(pixels, [[margin, margin], [margin, margin], [0, 0]])
        pixels = tf.image.stateless_random_crop(pixels, (*size, 3), seed)
    return pixels


def _random_resized_crop(image, size, augmentation, seed):
    def window(shape):
        return random_window(shape, augmentation.crop_scale, augmentation.crop_ratio, seed)

    def of_jpeg():
        return tf.image.decode_and_crop_jpeg(image, window(tf.io.extract_jpeg_shape(image)), 3)

    def of_pixels():
        pixels = decode(image)
        top, left, height, width = tf.unstack(window(tf.shape(pixels)))
        return pixels[top : top + height, left : left + width]

    view = tf.cond(tf.io.is_jpeg(image), of_jpeg, of_pixels) if image.dtype == tf.string else of_pixels()
    return _resize(view, size, augmentation.interpolation)


def random_window(shape: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Returns (top, left, height, width) of a random part of an image, int32.

    Its area, as a part of the image's, is uniform in `scale`, the logarithm of width over height uniform in that of `ratio`
    (Szegedy et al. 2015). Of ten draws the first that fits is taken; if none does, the middle of the image.
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
    middle = tf.round(tf.minimum(sides, sides[::-1] * [1 / ratio[0], ratio[1]]))
    extent = tf.where(any_fits, tf.gather(extents, tf.argmax(fits), axis=1), middle)
    room = sides - extent
    begin = tf.where(any_fits, tf.floor(draws[:, 10] * (room + 1)), tf.floor(room / 2))
    return tf.cast(tf.concat([begin, extent], 0), "int32")


def _resize(pixels, size, interpolation):
    """Resizes to `size`; antialiased if more than three quarters of the pixels go, since then many would not be seen."""
    if tuple(pixels.shape[:2]) != tuple(size):
        shrinks = tf.size(pixels) > 4 * 3 * size[0] * size[1]
        resize = functools.partial(tf.image.resize, pixels, size, interpolation)
        pixels = tf.cond(shrinks, lambda: resize(antialias=True), resize)
    return tf.ensure_shape(pixels, (*size, 3))


def to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Rounds and clips to uint8."""
    return values if values.dtype == "uint8" else tf.cast(tf.clip_by_value(tf.round(values), 0, 255), "uint8")


def flip(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """Mirrors an image (H, W, C) if a number in [0, 1) is below a half."""
    return tf.where(draw < 0.5, tf.reverse(image, [1]), image)


def erase(image: tf.Tensor, rate: float, draws: tf.Tensor) -> tf.Tensor:
    """Fills a rectangle of a part `rate` of the images (H, W, 3), uint8, with noise of ImageNet's mean and deviation.

    The rectangle has 1/50 to 1/3 of the area and a ratio of sides of 3/10 to 10/3 (Zhong et al. 2020). All images take their
    noise from one picture of it, rolled by random distances, since drawing so many numbers takes longer than all the rest.
    Seven numbers in [0, 1) say whether, with which area, ratio of sides, place (two), and how far the noise is rolled (two).
    """

    def erased():
        height, width, _ = image.shape
        noise = tf.roll(_noise(height, width), tf.cast(draws[5:] * [float(height), float(width)], "int32"), [0, 1])
        return tf.where(_rectangle(height, width, draws[1:5]), noise, image)

    return tf.cond(draws[0] < rate, erased, lambda: image)


@functools.cache
def _noise(height, width):
    """Noise (height, width, 3) of the beta distribution, which has both moments and does not leave the range of pixels."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    concentration = mean * (1 - mean) / std**2 - 1
    noise = np.random.default_rng(0).beta(mean * concentration, (1 - mean) * concentration, (height, width, 3))
    return np.rint(255 * noise).astype("uint8")


def _rectangle(height, width, draws):
    """Returns which pixels (height, width, 1) are in a rectangle; the draws are of its area, its ratio of sides, y and x."""
    sides = tf.constant([height, width], "float32")
    area = (1 / 50 + draws[0] * (1 / 3 - 1 / 50)) * tf.reduce_prod(sides)
    ratio = tf.exp((2 * draws[1] - 1) * math.log(10 / 3))
    extent = tf.minimum(tf.round(tf.sqrt([area * ratio, area / ratio])), sides)
    begin = tf.floor(draws[2:] * (sides - extent + 1))
    (top, left), (bottom, right) = tf.unstack(begin), tf.unstack(begin + extent)
    return inside(height, width, top, left, bottom, right)


def inside(height: int, width: int, top, left, bottom, right) -> tf.Tensor:
    """Returns which pixels (height, width, 1) are in a rectangle."""
    rows, columns = tf.range(float(height))[:, None, None], tf.range(float(width))[:, None]
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
