"""Sources of labeled images, either with random access or as a stream."""

import dataclasses
import os
import pathlib
import typing
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_t2t.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
SHUFFLE_BUFFER = 5_000
LABEL_OUT_OF_RANGE = "Label out of range"


def images_in_folder(folder: str | os.PathLike) -> list[str]:
    """Returns the image files among `visible_files`, sorted."""
    return sorted(str(path) for path in visible_files(folder) if path.suffix.lower() in SUFFIXES)


def visible_files(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the files in a folder and its subfolders, including linked ones but not hidden ones. See `is_visible`."""
    seen = set()
    for parent, folders, names in os.walk(os.fspath(folder), followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(is_visible, folders))
        paths = (pathlib.Path(parent, name) for name in names if is_visible(name))
        yield from (path for path in paths if path.is_file())


def is_visible(name: str) -> bool:
    """Returns whether a file or folder is meant to be seen: not hidden, and not one that macOS adds to archives."""
    return not name.startswith(".") and name != "__MACOSX"


class Source(typing.Protocol):
    """Images with targets: class indices (`ImageSource`), masks (`MaskSource`) or boxes (`BoxSource`)."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns the images one by one.

        Args:
            epoch_seed: Seed for shuffling, of shape `(2,)`, or `None` to keep the order of the source.
            shard: `(index of this shard, number of shards)`. With n shards, each one gets every n-th image. If the order is
                shuffled, all shards get the same number of images, and the remainder is dropped.

        Returns:
            Dataset of tuples that start with the image: the bytes of an image file, or pixels.
        """
        ...


class ImageSource(Source, typing.Protocol):
    """Labeled images for training and evaluation, as accepted by `training.train` and `training.evaluate`.

    `IndexedSource` and `StreamSource` implement it. Any other class with the same members also works. The elements are
    `(image, label)` pairs. A label is a class index.
    """

    @property
    def from_files(self) -> bool:
        """Whether the images are stored as paths of files."""
        ...


def shuffled_indices(size: int, epoch_seed: tf.Tensor | None, shard: tuple[int, int]) -> tf.data.Dataset:
    """Returns the indices of `size` images, in the order of an epoch; see `Source.elements`."""
    order = tf.range(size, dtype="int64")
    if epoch_seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, epoch_seed)
        order = order[: size // shard[1] * shard[1]]
    return tf.data.Dataset.from_tensor_slices(order[shard[0] :: shard[1]])


def path_tensor(paths: Iterable[str]) -> tf.Tensor:
    """Returns paths as a tensor, also those that are not valid UTF-8."""
    return tf.constant([os.fsencode(path) for path in paths], "string")


def _paths_or_pixels(images):
    """Returns an array of strings for paths of any type, such as those in a column of pandas, and other arrays as they are."""
    images = np.asarray(images)
    if images.dtype.kind not in "OSU":
        return images
    try:
        return np.array([os.fsdecode(path) for path in images], str)
    except TypeError as error:
        raise DataError(f"Expected paths of files, or an array of pixels; received: {error}") from error


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedSource:
    """Labeled images with random access.

    Attributes:
        images: Paths of files, or pixels of shape `(N, H, W, 3)` or `(N, H, W, 1)` in [0, 255].
        labels: Class indices, as an integer array of shape `(N,)`.
        classes: Names of the classes.

    Raises:
        DataError: If the images are neither paths nor pixels, if there is not one integer label per image, or if labels are out
            of range.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        object.__setattr__(self, "images", _paths_or_pixels(self.images))
        object.__setattr__(self, "labels", labels)
        if len(self.images) != len(labels) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"Expected an integer label for every image; received: {len(self.images)} images and labels of shape "
                f"{labels.shape} and dtype {labels.dtype}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise DataError(f"Expected labels from 0 to {len(self.classes) - 1}; received: {labels.min()} to {labels.max()}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def from_files(self) -> bool:
        """Whether the images are paths of files."""
        return self.images.dtype.kind == "U"

    def subset(self, indices: Sequence[int] | np.ndarray) -> "IndexedSource":
        """Returns a source with only the images at these indices."""
        return IndexedSource(self.images[indices], self.labels[indices], self.classes)

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns the images one by one; see `Source.elements`."""
        with tf.init_scope():  # the graph captures these tensors instead of copying them
            images = path_tensor(self.images) if self.from_files else tf.constant(self.images)
            labels = tf.constant(self.labels, "int64")
        dataset = shuffled_indices(len(self), epoch_seed, shard)
        if not self.from_files:
            return dataset.map(lambda i: (images[i], labels[i]))
        return dataset.map(lambda i: (tf.io.read_file(images[i]), labels[i]), tf.data.AUTOTUNE, deterministic=True)


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSource:
    """Labeled images that can only be read sequentially, such as those from TensorFlow Datasets.

    Attributes:
        dataset: Dataset of `(image, label)` pairs. An image is the bytes of an image file, or pixels, of one size for all
            images. A label is a class index.
        size: Number of images.
        classes: Names of the classes.
    """

    dataset: tf.data.Dataset
    size: int
    classes: tuple[str, ...]
    from_files = False

    def __len__(self) -> int:
        return self.size

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns the images one by one; see `Source.elements`.

        Images are shuffled within consecutive windows of `SHUFFLE_BUFFER` images. The windows are the same in every epoch. Each
        shard reads the whole stream and keeps its own share.
        """

        def check_label(image, label):
            in_range = (label >= 0) & (label < len(self.classes))
            with tf.control_dependencies([tf.debugging.Assert(in_range, [LABEL_OUT_OF_RANGE, label])]):
                return image, tf.identity(label)

        dataset = self.dataset.map(check_label)
        if epoch_seed is None:
            return dataset.shard(shard[1], shard[0])
        dataset = dataset.take(self.size // shard[1] * shard[1]).shard(shard[1], shard[0])

        def shuffle_window(index, window):  # `Dataset.shuffle` does not take a seed that changes from epoch to epoch
            seed = tf.random.experimental.stateless_fold_in(epoch_seed, index)
            order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(window[1])[0]), seed)
            return tf.gather(window[0], order), tf.gather(window[1], order)

        return dataset.batch(SHUFFLE_BUFFER).enumerate().map(shuffle_window).unbatch()


def from_arrays(images: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None) -> IndexedSource:
    """Returns a source for images in arrays.

    Args:
        images: Array of shape `(N, H, W, 3)` or `(N, H, W, 1)` with values in [0, 255].
        labels: Class indices of shape `(N,)`.
        classes: Names of the classes. By default, they are named by their indices.

    Raises:
        DataError: If the images have an invalid shape, if there is not one integer label per image, or if labels are out of
            range.

    Example:

    >>> source = keras_t2t.data.from_arrays(np.zeros((3, 32, 32, 3), "uint8"), [0, 1, 1])
    >>> len(source), source.classes
    (3, ('0', '1'))
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"Expected images of shape (N, H, W, 3) or (N, H, W, 1); received: {images.shape}")
    if len(images) == 0:
        raise DataError("Expected at least one image; received: none")
    low, high = images.min(), images.max()
    if images.dtype.kind not in "iuf" or not 0 <= low <= high <= 255 or (images.dtype.kind == "f" and 0 < high <= 1):
        raise DataError(
            f"Expected images with values in [0, 255]; received: values from {low} to {high} of dtype {images.dtype}"
        )
    labels = np.asarray(labels).reshape(-1)
    if classes is None:
        known = labels.dtype.kind in "iu" and len(labels) > 0
        classes = [str(index) for index in range(int(labels.max()) + 1)] if known else []
    return IndexedSource(images, labels, tuple(classes))
