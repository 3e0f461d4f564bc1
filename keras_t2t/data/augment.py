"""Random changes of single images, each a pure function of the image and a seed.

Sources: section 4.1 of the paper, which takes its augmentation from DeiT (Touvron et al. 2021, table 9).
"""

import dataclasses
import functools
import math

import tensorflow as tf

from keras_t2t.imagenet import MEAN, STD

CROPS = ("resized", "padded", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to training images.

    Attributes:
        crop_kind: `"resized"`: a random part of the image, resized; `"padded"`: the resized image, shifted over a margin of
            zeros; `"none"`: the resized image.
        crop_scale: least and greatest part of the image's area, with `"resized"`.
        crop_ratio: least and greatest width over height, with `"resized"`.
        crop_padding: pixels of the margin, with `"padded"`.
        interpolation: method of `tf.image.resize`.
        flip: whether to mirror half of the images.
        rand_augment: changes of RandAugment for each image; 0 for none.
        rand_augment_magnitude: their strength, 0 to 10.
        rand_augment_deviation: standard deviation of the strength.
        erase_rate: part of the images in which a rectangle becomes noise.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        mix_rate: part of the batches that are mixed.
        switch_rate: part of the mixed batches that are mixed by CutMix, if there are both.
        label_smoothing: part of the target that is spread over all classes.
    """

    crop_kind: str = "resized"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    interpolation: str = "bicubic"
    flip: bool = True
    rand_augment: int = 2
    rand_augment_magnitude: float = 9.0
    rand_augment_deviation: float = 0.5
    erase_rate: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_rate: float = 1.0
    switch_rate: float = 0.5
    label_smoothing: float = 0.1


def decode(image: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Returns the pixels (H, W, channels) of an encoded image or of pixels; those of a JPEG as PIL decodes it."""
    if image.dtype == tf.string:
        return tf.cond(
            tf.io.is_jpeg(image),
            lambda: tf.io.decode_jpeg(image, channels, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(image, channels, expand_animations=False),
        )
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 and channels == 3 else image


def random_crop(image: tf.Tensor, size: tuple[int, int], augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Returns a random view (*size, 3), float32 in [0, 255], of an encoded image or of pixels.

    A JPEG is decoded only where the view needs it.
    """
    if augmentation.crop_kind == "resized":
        return _random_resized_crop(image, size, augmentation, seed)
    pixels = _resize(decode(image), size, augmentation.interpolation)
    if augmentation.crop_kind == "padded":
        margin = augmentation.crop_padding
        pixels = tf.pad(pixels, [[margin, margin], [margin, margin], [0, 0]])
        pixels = tf.image.stateless_random_crop(pixels, (*size, 3), seed)
    return pixels


def _random_resized_crop(image, size, augmentation, seed):
    encoded = image.dtype == tf.string
    is_jpeg = encoded and tf.io.is_jpeg(image)
    pixels = tf.cond(is_jpeg, lambda: tf.zeros((0, 0, 3), "uint8"), lambda: decode(image)) if encoded else decode(image)
    shape = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(image), lambda: tf.shape(pixels)) if encoded else tf.shape(pixels)
    window = random_window(shape, augmentation.crop_scale, augmentation.crop_ratio, seed)

    def slice_pixels():
        return tf.slice(pixels, [window[0], window[1], 0], [window[2], window[3], 3])

    if encoded:
        view = tf.cond(is_jpeg, lambda: tf.image.decode_and_crop_jpeg(image, window, 3), slice_pixels)
    else:
        view = slice_pixels()
    return _resize(view, size, augmentation.interpolation)


def random_window(shape: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """Returns (top, left, height, width) of a random part of an image, int32.

    Its area, as a part of the image's, is uniform in `scale`, the logarithm of width over height uniform in that of `ratio`
    (Szegedy et al. 2015). Of ten draws the first that fits is taken; if none does, the middle of the image.
    """
    height, width = tf.cast(shape[0], "float32"), tf.cast(shape[1], "float32")
    low, high = tf.constant([scale[0], math.log(ratio[0])])[:, None], tf.constant([scale[1], math.log(ratio[1])])[:, None]
    draws = tf.random.stateless_uniform((2, 11), seed)
    area, log_ratio = tf.unstack(low + (high - low) * draws[:, :10])
    area = area * height * width
    sides = tf.round(tf.sqrt([area * tf.exp(-log_ratio), area * tf.exp(log_ratio)]))  # (2, 10): heights and widths
    fits = tf.reduce_all((sides >= 1) & (sides <= [[height], [width]]), 0)
    middle = tf.round([tf.minimum(height, width / ratio[0]), tf.minimum(width, height * ratio[1])])
    any_fits = tf.reduce_any(fits)
    extent = tf.where(any_fits, sides[:, tf.argmax(fits)], middle)
    room = [height, width] - extent
    begin = tf.where(any_fits, tf.floor(draws[:, 10] * (room + 1)), tf.floor(room / 2))
    return tf.cast(tf.concat([begin, extent], 0), "int32")


def _resize(pixels, size, interpolation):
    """Resizes to `size`; antialiased if more than half of the pixels of a line go, since then some would not be seen."""
    if tuple(pixels.shape[:2]) != tuple(size):
        shrinks = tf.reduce_any(tf.shape(pixels)[:2] > 2 * tf.constant(size))
        resize = functools.partial(tf.image.resize, pixels, size, interpolation)
        pixels = tf.cond(shrinks, lambda: resize(antialias=True), resize)
        pixels = tf.clip_by_value(pixels, 0, 255)
    return tf.ensure_shape(tf.cast(pixels, "float32"), (*size, 3))


def random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors half of the images (H, W, C)."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def random_erase(image: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Fills a rectangle of a part `rate` of the images (H, W, 3) with noise of ImageNet's mean and deviation.

    The rectangle has 1/50 to 1/3 of the area and a ratio of sides of 3/10 to 10/3 (Zhong et al. 2020).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    chance, *place = tf.unstack(tf.random.stateless_uniform((5,), seeds[0]))
    return tf.cond(chance < rate, lambda: _erase(image, *place, seeds[1]), lambda: image)


def _erase(image, area, ratio, y, x, seed):
    """Four numbers in [0, 1) say where."""
    height, width, channels = image.shape
    area = (1 / 50 + area * (1 / 3 - 1 / 50)) * height * width
    ratio = tf.exp((2 * ratio - 1) * tf.math.log(10 / 3))
    extent = tf.minimum(tf.sqrt([area * ratio, area / ratio]), [float(height), float(width)])
    extent = tf.cast(tf.round(extent), "int32")
    room = tf.constant([height, width]) - extent
    begin = tf.cast(tf.floor(tf.stack([y, x]) * tf.cast(room + 1, "float32")), "int32")
    around = tf.concat([tf.stack([begin, room - begin], 1), [[0, 0]]], 0)
    noise = tf.random.stateless_normal((extent[0], extent[1], channels), seed)
    patch = tf.pad(255 * (tf.constant(MEAN) + tf.constant(STD) * noise), around)
    kept = tf.pad(tf.zeros_like(noise), around, constant_values=1.0)
    return tf.ensure_shape(image * kept + patch, (height, width, channels))
