"""Random views of images whose masks or boxes move with them, for training segmenters and detectors."""

from typing import Any

import tensorflow as tf

from keras_t2t.data.augment import cut, random_window, resize_view, to_uint8
from keras_t2t.data.boxes import NO_BOX, BoxSource
from keras_t2t.data.decoding import decode_file, without_autograph
from keras_t2t.data.masks import MaskSource
from keras_t2t.data.pipeline import parallel_over_images, seeded_elements

CROP_RATIO = (3 / 4, 4 / 3)
MIN_VISIBLE = 0.25


def segmentation_batches(
    source: MaskSource,
    size: tuple[int, int],
    batch_size: int,
    *,
    crop_scale: tuple[float, float] = (0.25, 1.0),
    flip: bool = True,
    seed: int = 0,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Returns an infinite dataset of random views of images with their masks, one epoch after another.

    A view is a random crop, resized to `size`, and flipped horizontally half of the time. The contents of an epoch depend only
    on the seed and the index of the epoch.

    Args:
        source: Source of the images, from `keras_t2t.data.from_masks`.
        size: `(height, width)` of the batches.
        batch_size: Number of images in a batch. Images left over at the end of an epoch are dropped.
        crop_scale: Minimum and maximum area of a crop as a fraction of the image's area. The aspect ratio of a crop is that of
            `size` times a factor from 3/4 to 4/3.
        flip: Whether to flip half of the images.
        seed: Seed for all random numbers.
        first_epoch: Index of the epoch to start with.

    Returns:
        Dataset of images `(B, height, width, 3)`, float32 in [0, 255], and masks `(B, height, width)`, int32.

    Raises:
        DataError: If there are fewer images than `batch_size`.
    """

    @without_autograph
    def view(image, mask, seed):
        pixels, window, flipped = _random_view(image, size, crop_scale, flip, seed)
        return pixels, mask_view(mask, window, flipped, size)

    dataset = seeded_elements(source, batch_size, seed, first_epoch).map(view, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(1).with_options(parallel_over_images())


def detection_batches(
    source: BoxSource,
    size: tuple[int, int],
    batch_size: int,
    *,
    crop_scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = True,
    labels_key: str = "labels",
    seed: int = 0,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Returns an infinite dataset of random views of images with their boxes, one epoch after another.

    See `segmentation_batches`. A box is clipped to the view, and dropped if less than a quarter of it is left.

    Args:
        source: Source of the images, from `keras_t2t.data.from_voc` or `keras_t2t.data.from_coco`.
        size: `(height, width)` of the batches.
        batch_size: Number of images in a batch. Images left over at the end of an epoch are dropped.
        crop_scale: Minimum and maximum area of a crop as a fraction of the image's area.
        flip: Whether to flip half of the images.
        labels_key: Name of the class indices in the targets: `"labels"` for KerasHub, or `"classes"` for keras-cv.
        seed: Seed for all random numbers.
        first_epoch: Index of the epoch to start with.

    Returns:
        Dataset of images `(B, height, width, 3)`, float32 in [0, 255], and a dictionary: `"boxes"`, float32 `(B, M, 4)`, which
        are (x_min, y_min, x_max, y_max) in pixels of the view, and `labels_key`, int32 `(B, M)`. M is the largest number of
        boxes in an image of `source`. Rows without a box are -1 and come last.

    Raises:
        DataError: If there are fewer images than `batch_size`.
    """

    @without_autograph
    def view(image, boxes, labels, seed):
        pixels, window, flipped = _random_view(image, size, crop_scale, flip, seed)
        boxes, labels = box_view(boxes, labels, window, flipped, size)
        return pixels, {"boxes": boxes, labels_key: labels}

    dataset = seeded_elements(source, batch_size, seed, first_epoch).map(view, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(1).with_options(parallel_over_images())


def resized(pixels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes an image `(H, W, 3)` to `(*size, 3)`, float32 with whole numbers in [0, 255]."""
    return tf.cast(to_uint8(resize_view(pixels, size)), "float32")


def _random_view(image, size, crop_scale, flip, seed):
    """Returns a random view `(*size, 3)` of an image, its window, and whether it is flipped."""
    window_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    pixels = decode_file(image)
    ratio = tuple(factor * size[1] / size[0] for factor in CROP_RATIO)
    window = random_window(tf.shape(pixels), crop_scale, ratio, window_seed)
    flipped = flip & (tf.random.stateless_uniform((), flip_seed) < 0.5)
    view = resized(cut(pixels, window), size)
    return tf.where(flipped, tf.reverse(view, [1]), view), window, flipped


def mask_view(mask: tf.Tensor, window: tf.Tensor, flipped: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the part of a mask that a view shows.

    Args:
        mask: Class indices `(H, W)`.
        window: `(top, left, height, width)` of the view, an int tensor.
        flipped: Whether the view is flipped horizontally, a boolean scalar.
        size: `(height, width)` that the view is resized to. The nearest index is taken.

    Returns:
        Tensor `(*size)`, int32.
    """
    view = tf.image.resize(cut(mask[..., None], window), size, "nearest")[..., 0]
    return tf.ensure_shape(tf.where(flipped, tf.reverse(view, [1]), view), size)


def box_view(
    boxes: tf.Tensor, labels: tf.Tensor, window: tf.Tensor, flipped: tf.Tensor, size: tuple[int, int]
) -> tuple[Any, Any]:
    """Returns the boxes in the coordinates of a view. Boxes of which less than a quarter is visible are dropped.

    Args:
        boxes: Boxes `(M, 4)` as (x_min, y_min, x_max, y_max) in pixels of the image. Rows of -1 are no boxes.
        labels: Class indices `(M,)`; -1 for rows that are no boxes.
        window: `(top, left, height, width)` of the view, an int tensor.
        flipped: Whether the view is flipped horizontally, a boolean scalar.
        size: `(height, width)` that the view is resized to.

    Returns:
        Boxes `(M, 4)` and labels `(M,)`, with rows of -1 at the end.
    """
    top, left, height, width = tf.unstack(tf.cast(window, "float32"))
    scale = tf.stack([size[1] / width, size[0] / height] * 2)
    moved = (boxes - tf.stack([left, top, left, top])) * scale
    clipped = tf.clip_by_value(moved, 0.0, tf.constant([size[1], size[0]] * 2, "float32"))
    keep = (labels >= 0) & (_areas(clipped) > MIN_VISIBLE * _areas(moved))
    x_min, y_min, x_max, y_max = tf.unstack(clipped, axis=1)
    mirrored = tf.stack([size[1] - x_max, y_min, size[1] - x_min, y_max], axis=1)
    clipped = tf.where(flipped, mirrored, clipped)
    order = tf.argsort(tf.cast(~keep, "int32"), stable=True)
    clipped, labels = tf.where(keep[:, None], clipped, NO_BOX), tf.where(keep, labels, NO_BOX)
    return tf.gather(clipped, order), tf.gather(labels, order)


def _areas(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
