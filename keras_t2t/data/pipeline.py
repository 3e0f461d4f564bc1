"""Batches for training and evaluation with `tf.data`, prepared in parallel and fully determined by the seed and the epoch."""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_t2t.configs import check_image_size, check_value, is_count
from keras_t2t.data.augment import compiled, erase, flip, random_crop, to_uint8
from keras_t2t.data.decoding import decode_file, without_autograph
from keras_t2t.data.mixing import mix, smooth
from keras_t2t.data.preparation import center_view
from keras_t2t.data.randaugment import rand_augment
from keras_t2t.data.sources import ImageSource, IndexedSource, Source
from keras_t2t.errors import DataError, counted
from keras_t2t.keras_internals import draws_random_numbers, layers_inside
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.recipes import Augmentation

MIXING_LAYERS = ("CutMix", "MixUp")
"""Class names of the layers that also change the targets, in Keras and in keras-cv."""


def training_batches(
    source: ImageSource,
    size: tuple[int, int],
    batch_size: int,
    augmentation: Augmentation,
    *,
    seed: int = 0,
    first_epoch: int = 0,
    shard: tuple[int, int] = (0, 1),
    augment: keras.Layer | None = None,
) -> tf.data.Dataset:
    """Returns an infinite dataset of augmented training batches, one epoch after another.

    Without `augment`, the contents of an epoch depend only on the seed and the index of the epoch, so training can resume where
    it stopped.

    Each epoch is divided among the shards. Images of an `IndexedSource` are augmented as they would be without shards, except
    that Mixup and CutMix only mix images within a shard.

    Args:
        source: Source of the images.
        size: `(height, width)` of the batches.
        batch_size: Number of images in a batch of this shard. Images left over at the end of an epoch are dropped.
        augmentation: How to augment the images.
        seed: Seed for all random numbers.
        first_epoch: Index of the epoch to start with.
        shard: `(index of this shard, number of shards)`, for training on several hosts.
        augment: A Keras preprocessing layer that is applied to each batch last, such as
            `keras.layers.RandomBrightness(0.2)`. Layers such as `keras.layers.CutMix` change the targets, too. If it draws
            random numbers, a warning says that epochs cannot be repeated.

    Returns:
        Dataset of images `(B, H, W, 3)`, float32 in [0, 255], and targets `(B, classes)`, float32.

    Raises:
        DataError: If there are not enough images for one batch in each shard.

    Example:

    >>> source = keras_t2t.data.from_arrays(np.zeros((8, 32, 32, 3), "uint8"), np.arange(8) % 2)
    >>> batches = keras_t2t.data.training_batches(source, (24, 24), 4, keras_t2t.data.Augmentation())
    >>> images, targets = next(iter(batches))
    >>> images.shape, targets.shape
    (TensorShape([4, 24, 24, 3]), TensorShape([4, 2]))
    """
    size, steps = check_image_size(size), steps_per_epoch(source, batch_size, shard)

    @without_autograph
    def augmented(image, label, image_seed):
        crop_seed, seed = tf.unstack(tf.random.experimental.stateless_split(image_seed, 2))
        return augment_view(random_crop(image, size, augmentation, crop_seed), augmentation, seed), label

    @without_autograph
    def mixed(index, batch):
        images, labels = batch
        targets = smooth(labels, len(source.classes), augmentation.label_smoothing)
        index_in_epoch = -1 - index % steps * shard[1] - shard[0]  # negative, so that no image has the same seed
        return mix(images, targets, augmentation, element_seed(seed, first_epoch + index // steps, index_in_epoch))

    # Images stay uint8 until they are mixed and only one batch is prefetched, since float batches take up most of the memory.
    dataset = seeded_elements(source, batch_size, seed, first_epoch, shard)
    dataset = dataset.map(augmented, tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).enumerate()
    dataset = dataset.map(mixed)
    if augment is not None:
        dataset = _augmented(dataset, augment)
    return dataset.prefetch(1).with_options(parallel_over_images())


def _augmented(dataset, layer):
    """Applies a Keras preprocessing layer to batches of images and targets, one batch after the other."""
    mixes = _is_mixing(layer)
    inner = [] if mixes else [each for each in layers_inside(layer) if _is_mixing(each)]
    if inner:
        raise ValueError(f"{inner[0].name} inside {layer.name} cannot change the targets; pass it as `augment` itself")

    def apply(images, targets):
        if not mixes:
            return layer(images, training=True), targets
        batch = layer({"images": images, "labels": targets}, training=True)
        return batch["images"], batch["labels"]

    dataset = dataset.map(apply)  # builds the layer; in parallel, the order of its random numbers would change
    if draws_random_numbers(layer):
        warnings.warn(
            f"{layer.name} draws its random numbers one after the other, so the epochs of a run that is resumed differ from "
            "those of a run that is not interrupted",
            stacklevel=3,
        )
    return dataset


def _is_mixing(layer):
    return any(base.__name__ in MIXING_LAYERS for base in type(layer).__mro__)


def steps_per_epoch(source: Source, batch_size: int, shard: tuple[int, int] = (0, 1)) -> int:
    """Returns the number of full batches in an epoch of each shard.

    Raises:
        DataError: If there is none.
    """
    check_value(is_count(batch_size), "batch_size", "a positive integer", batch_size)
    steps = len(source) // (shard[1] * batch_size)
    if steps == 0:
        raise DataError(
            f"Expected at least one batch of {batch_size} images for each of {shard[1]} processes; "
            f"found {counted(len(source), 'image')}"
        )
    return steps


def seeded_elements(
    source: Source, batch_size: int, seed: int, first_epoch: int, shard: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Returns an infinite dataset of a source's elements, one shuffled epoch after another, each with a seed of its own.

    Args:
        source: Source of the images.
        batch_size: Number of images in a batch. Images left over at the end of an epoch are dropped.
        seed: Seed for all random numbers.
        first_epoch: Index of the epoch to start with.
        shard: `(index of this shard, number of shards)`.

    Returns:
        Dataset of the elements of `source` with a seed of shape `(2,)` as an additional component.
    """
    epoch_size = steps_per_epoch(source, batch_size, shard) * batch_size

    @without_autograph
    def elements(epoch):
        return source.elements(element_seed(seed, epoch, purpose=-1), shard).take(epoch_size)

    @without_autograph
    def with_seed(index, element):
        index_in_epoch = index % epoch_size * shard[1] + shard[0]
        return (*element, element_seed(seed, first_epoch + index // epoch_size, index_in_epoch))

    return tf.data.Dataset.range(first_epoch, np.iinfo("int64").max).flat_map(elements).enumerate().map(with_seed)


def element_seed(seed: int, epoch: tf.Tensor, index: tf.Tensor | None = None, purpose: int = 0) -> tf.Tensor:
    """Returns the seed of an epoch or, with `index`, of an element in it, of shape `(2,)`."""
    epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([seed, purpose], "int64"), epoch)
    return epoch_seed if index is None else tf.random.experimental.stateless_fold_in(epoch_seed, index)


def parallel_over_images() -> tf.data.Options:
    """Returns options for datasets that process several images at a time."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return options


def augment_view(view: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Flips a cropped image, applies RandAugment and erases a rectangle, as specified by `augmentation`.

    Everything is compiled into a single operation, because starting an operation takes time. The random numbers are drawn
    outside of it, because XLA cannot draw them.

    Args:
        view: Tensor of shape `(H, W, 3)` with values in gray levels.
        augmentation: Settings for flipping, RandAugment and erasing.
        seed: Integer tensor of shape `(2,)`.

    Returns:
        Uint8 tensor of shape `(H, W, 3)`.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    num_ops = augmentation.rand_augment_num_ops
    draws = tf.random.stateless_uniform((8 + 3 * num_ops,), seeds[0])
    magnitude = augmentation.rand_augment_magnitude, augmentation.rand_augment_magnitude_std
    strengths = tf.random.stateless_normal((num_ops,), seeds[1], *magnitude)

    @compiled
    def augmented(image, draws, strengths):
        image = to_uint8(image)
        if augmentation.flip:
            image = flip(image, draws[0])
        if num_ops:
            image = rand_augment(image, tf.reshape(draws[8:], (num_ops, 3)), strengths)
        return erase(image, augmentation.random_erase_prob, draws[1:8]) if augmentation.random_erase_prob else image

    return augmented(view, draws, strengths)


def evaluation_batches(source: ImageSource, preprocessing: Preprocessing, batch_size: int) -> tf.data.Dataset:
    """Returns a dataset of batches with each image once, in order, resized and center-cropped.

    Args:
        source: Source of the images.
        preprocessing: How to resize and crop. The images are not normalized.
        batch_size: Number of images in a batch.

    Returns:
        Dataset of images `(B, H, W, 3)`, float32 in [0, 255], and one-hot targets `(B, classes)`. The last batch may be
        smaller.
    """
    return _evaluation_views(source, preprocessing).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def padded_evaluation_batches(
    source: ImageSource, preprocessing: Preprocessing, batch_size: int, *, shard: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Returns one process's share of `evaluation_batches`, padded so that every process gets the same number of full batches.

    Args:
        source: Source of the images.
        preprocessing: How to resize and crop.
        batch_size: Number of images in a batch of this process.
        shard: `(index of this process, number of processes)`.

    Returns:
        Dataset of images, targets, and weights `(B,)`. The weights are 0 for padding, and their mean over all processes is 1.
    """
    rows = math.ceil(len(source) / (shard[1] * batch_size)) * batch_size
    weight = rows * shard[1] / len(source)
    views = _evaluation_views(source, preprocessing, shard).map(lambda *view: (*view, weight))
    padding = (tf.zeros((*preprocessing.image_size, 3)), tf.zeros(len(source.classes)), 0.0)
    views = views.concatenate(tf.data.Dataset.from_tensors(padding).repeat()).take(rows)
    return views.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _evaluation_views(source, preprocessing, shard=(0, 1)):
    @without_autograph
    def prepare(image, label):
        return center_view(decode_file(image), preprocessing), tf.one_hot(label, len(source.classes))

    return source.elements(None, shard).map(prepare, tf.data.AUTOTUNE, deterministic=True)


def cached(source: ImageSource) -> ImageSource:
    """Decodes the files of an `IndexedSource` into memory.

    Args:
        source: Source of the images. If they are files, they must all have the same size.

    Returns:
        An `IndexedSource` of pixels, or `source` itself if its images are not files.

    Raises:
        DataError: If the images have different sizes.
    """
    if not isinstance(source, IndexedSource) or not source.from_files:
        return source

    @without_autograph
    def decoded(image, label):
        return decode_file(image)

    pixels = list(source.elements(None).map(decoded, tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator())
    sizes = {image.shape for image in pixels}
    if len(sizes) > 1:
        raise DataError(f"Expected images of the same size for caching; received: {len(sizes)} sizes")
    return IndexedSource(np.stack(pixels), source.labels, source.classes)
