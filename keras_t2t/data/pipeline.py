"""Batches for training and evaluation with tf.data: parallel, prefetched, and a pure function of the seed and the epoch."""

import math

import numpy as np
import tensorflow as tf

from keras_t2t.data.augment import Augmentation, compiled, erase, flip, random_crop, to_uint8
from keras_t2t.data.decoding import decode
from keras_t2t.data.mixing import mix, smooth
from keras_t2t.data.preparation import center_view
from keras_t2t.data.randaugment import rand_augment
from keras_t2t.data.sources import ImageSource, IndexedSource
from keras_t2t.errors import DataError
from keras_t2t.preprocessing import Preprocessing


def training_batches(
    source,
    size: tuple[int, int],
    batch_size: int,
    augmentation: Augmentation,
    *,
    seed: int = 0,
    first_epoch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns an endless dataset of (images, targets), one epoch after the other.

    What an epoch holds depends on the seed and the number of the epoch alone, so that training can go on where it stopped.
    Shards share an epoch, and each image of a `IndexedSource` changes as it would without shards; only mixing stays within a shard.

    Args:
        source: a `IndexedSource` or a `StreamSource`.
        size: (height, width) of the images.
        batch_size: images in a batch of this shard; what is left of an epoch is dropped.
        augmentation: what happens to the images.
        seed: of everything random.
        first_epoch: the epoch to begin with.
        shard: (number of this one, how many there are), for several hosts.

    Returns:
        Images (B, H, W, 3), float32 in [0, 255], and targets (B, classes), float32.

    Raises:
        DataError: if the images do not fill a batch.
    """
    steps = len(source) // (shard[1] * batch_size)
    if steps == 0:
        raise DataError(
            f"Expected at least one batch of {batch_size} images for each of {shard[1]} processes; found {len(source)}"
        )
    epoch_size = steps * batch_size

    def seed_of(epoch, purpose):
        return tf.random.experimental.stateless_fold_in(tf.constant([seed, purpose], "int64"), epoch)

    def elements(epoch):
        return source.elements(seed_of(epoch, -1), shard).take(epoch_size)

    def view(number, element):
        image, label = element
        place = number % epoch_size * shard[1] + shard[0]
        image_seed = tf.random.experimental.stateless_fold_in(seed_of(first_epoch + number // epoch_size, 0), place)
        crop_seed, seed = tf.unstack(tf.random.experimental.stateless_split(image_seed, 2))
        return change(random_crop(image, size, augmentation, crop_seed), augmentation, seed), label

    def mixed(number, batch):
        images, labels = batch
        targets = smooth(labels, len(source.classes), augmentation.label_smoothing)
        place = -1 - number % steps * shard[1] - shard[0]
        mix_seed = tf.random.experimental.stateless_fold_in(seed_of(first_epoch + number // steps, 0), place)
        return mix(images, targets, augmentation, mix_seed)

    # Images stay uint8 until they are mixed, and few batches wait: those of floats are most of the memory.
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1  # many images at a time are parallel enough
    dataset = tf.data.Dataset.range(first_epoch, np.iinfo("int64").max).flat_map(elements).enumerate()
    dataset = dataset.map(view, tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).enumerate()
    return dataset.map(mixed).prefetch(1).with_options(options)


def change(view: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors a view (H, W, 3), changes it with RandAugment and erases a part, each as told; returns it in whole gray levels.

    All is compiled into one operation, since every one takes time to start; XLA cannot draw the numbers.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    changes = augmentation.rand_augment_num_ops
    draws = tf.random.stateless_uniform((8 + 3 * changes,), seeds[0])
    strength = augmentation.rand_augment_magnitude, augmentation.rand_augment_magnitude_std
    strengths = tf.random.stateless_normal((changes,), seeds[1], *strength)

    @compiled
    def changed(image, draws, strengths):
        image = to_uint8(image)
        if augmentation.flip:
            image = flip(image, draws[0])
        if changes:
            image = rand_augment(image, tf.reshape(draws[8:], (changes, 3)), strengths)
        return erase(image, augmentation.random_erase_prob, draws[1:8]) if augmentation.random_erase_prob else image

    return changed(view, draws, strengths)


def evaluation_batches(source: ImageSource, preprocessing: Preprocessing, batch_size: int) -> tf.data.Dataset:
    """Returns a dataset of (images, targets) in order: each image once, resized and cropped from the center.

    Args:
        source: The images.
        preprocessing: How to resize and crop. The images are not normalized.
        batch_size: Number of images in a batch.

    Returns:
        Images `(B, H, W, 3)`, float32 in [0, 255], and one-hot targets `(B, classes)`. The last batch may be smaller.
    """
    return _evaluation_views(source, preprocessing).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def padded_evaluation_batches(
    source: ImageSource, preprocessing: Preprocessing, batch_size: int, *, shard: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Returns the part of `evaluation_batches` for one of several processes, padded so that all get the same batches.

    Args:
        source: The images.
        preprocessing: How to resize and crop.
        batch_size: Number of images in a batch of this process.
        shard: `(index of this process, number of processes)`.

    Returns:
        Images, targets, and weights `(B,)` that are 0 for padding, and 1 on average over all processes.
    """
    rows = math.ceil(len(source) / (shard[1] * batch_size)) * batch_size
    weight = rows * shard[1] / len(source)
    views = _evaluation_views(source, preprocessing, shard).map(lambda *view: (*view, weight))
    padding = (tf.zeros((*preprocessing.image_size, 3)), tf.zeros(len(source.classes)), 0.0)
    views = views.concatenate(tf.data.Dataset.from_tensors(padding).repeat()).take(rows)
    return views.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _evaluation_views(source, preprocessing, shard=(0, 1)):
    def view(image, label):
        return center_view(decode(image), preprocessing), tf.one_hot(label, len(source.classes))

    return source.elements(None, shard).map(view, tf.data.AUTOTUNE, deterministic=True)


def cached(source: IndexedSource) -> IndexedSource:
    """Returns the same source with its images decoded in memory, if they are of one size; as it is if they are not files."""
    if not source.from_files:
        return source
    dataset = source.elements(None).map(lambda image, label: decode(image), tf.data.AUTOTUNE, deterministic=True)
    pixels = list(dataset.as_numpy_iterator())
    if len({image.shape for image in pixels}) > 1:
        raise DataError("Only images of one size can be cached; these have several")
    return IndexedSource(np.stack(pixels), source.labels, source.classes)
