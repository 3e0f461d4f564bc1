"""Where labeled images come from: folders, TensorFlow Datasets, arrays."""

import dataclasses
import os
import pathlib
import typing
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_t2t.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp")
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
SHUFFLE_BUFFER = 5_000
OUTSIDE = "Labels outside of the classes"


class ImageSource(typing.Protocol):
    """Labeled images to train on or evaluate with: what `training.train` and `training.evaluate` accept.

    `IndexedSource` and `StreamSource` implement it. Any other class with these members works as well.

    Attributes:
        classes: Names of the classes.
        from_files: Whether the images are paths of files.
    """

    classes: tuple[str, ...]

    @property
    def from_files(self) -> bool: ...

    def __len__(self) -> int: ...

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns a dataset of (image, label): an encoded image or pixels, and the index of the class."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedSource:
    """Labeled images that can be asked for by number.

    Attributes:
        images: the paths of files, or pixels: array (N, H, W, 3) or (N, H, W, 1) in [0, 255].
        labels: int array (N,): the numbers of the classes.
        classes: names of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self):
        return len(self.labels)

    @property
    def from_files(self) -> bool:
        """Whether the images are paths of files."""
        return self.images.dtype.kind == "U"

    def subset(self, indices) -> "IndexedSource":
        """Returns the images of these numbers."""
        return IndexedSource(self.images[indices], self.labels[indices], self.classes)

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns a dataset of (image, label): bytes of a file or pixels, and the number of the class.

        Args:
            epoch_seed: seed (2,) of the order, None for the order of the numbers.
            shard: (number of this one, how many there are); each takes every so-manyth image, when shuffled all equally many.
        """
        order = tf.range(len(self), dtype="int64")
        if epoch_seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, epoch_seed)
            order = order[: len(self) // shard[1] * shard[1]]
        with tf.init_scope():  # captured, not written into the graph
            images, labels = tf.constant(self.images), tf.constant(self.labels, "int64")
        dataset = tf.data.Dataset.from_tensor_slices(order[shard[0] :: shard[1]])
        if not self.from_files:
            return dataset.map(lambda i: (images[i], labels[i]))
        return dataset.map(lambda i: (tf.io.read_file(images[i]), labels[i]), tf.data.AUTOTUNE, deterministic=True)


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSource:
    """Labeled images that come one after the other, as those of TensorFlow Datasets do.

    Attributes:
        dataset: of (encoded bytes or pixels, number of the class).
        size: how many there are.
        classes: names of the classes.
    """

    dataset: tf.data.Dataset
    size: int
    classes: tuple[str, ...]
    from_files = False

    def __len__(self):
        return self.size

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """As `IndexedSource.elements`; the order is shuffled within each `SHUFFLE_BUFFER` images, which are the same in every epoch.

        A shard reads all of the stream and keeps its part.
        """

        def checked(image, label):
            with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < len(self.classes)), [OUTSIDE, label])]):
                return image, tf.identity(label)

        dataset = self.dataset.map(checked)
        if epoch_seed is None:
            return dataset.shard(shard[1], shard[0])
        dataset = dataset.take(self.size // shard[1] * shard[1]).shard(shard[1], shard[0])

        def shuffled(number, window):  # `Dataset.shuffle` takes no seed that changes from epoch to epoch
            seed = tf.random.experimental.stateless_fold_in(epoch_seed, number)
            order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(window[1])[0]), seed)
            return tf.gather(window[0], order), tf.gather(window[1], order)

        return dataset.batch(SHUFFLE_BUFFER).enumerate().map(shuffled).unbatch()


def from_arrays(images: np.ndarray, labels: np.ndarray, classes: Sequence[str] | None = None) -> IndexedSource:
    """Returns a source of pixels.

    Args:
        images: (N, H, W, 3) or (N, H, W, 1) in [0, 255].
        labels: integers (N,).
        classes: names of the classes; by default their numbers.

    Raises:
        DataError: for images of another shape, if there are not as many labels as images, or labels outside of the classes.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(f"Expected images (N, H, W, 3) or (N, H, W, 1); received: {images.shape}")
    labels = np.asarray(labels).reshape(-1)
    if len(images) != len(labels) or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise DataError(f"Expected an integer label for every image; received {len(images)} images and {len(labels)} labels")
    classes = tuple(map(str, range(labels.max() + 1))) if classes is None else tuple(classes)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(f"Expected labels from 0 to {len(classes) - 1}; received: {labels.min()} to {labels.max()}")
    return IndexedSource(images, labels.astype("int64"), classes)


def from_folder(folder: str | os.PathLike, validation_fraction: float = 0.2, seed: int = 0) -> dict[str, IndexedSource]:
    """Returns the images of a folder with one subfolder for each class.

    The folder may have `train` and `val` (or `validation`, or `test`) with the classes in each. If it does not, a part of every
    class is held out.

    Args:
        folder: the folder.
        validation_fraction: the part of each class to hold out where there is no split.
        seed: of what is held out.

    Returns:
        Sources by `"train"`, `"val"`, and `"test"` where there is one.

    Raises:
        DataError: if there are no classes, only one, or one without images; says which.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"Expected a folder of images with one subfolder for each class; there is no folder {folder}")
    names = {
        SPLITS[path.name.lower()]: path for path in sorted(folder.iterdir()) if path.name.lower() in SPLITS and path.is_dir()
    }
    if names and "train" not in names:
        raise DataError(f"Expected train beside {', '.join(sorted(names))} in {folder}, or one subfolder for each class")
    if not names:
        return _stratified(_classes_of(folder), validation_fraction, seed)
    sources = {split: _classes_of(path) for split, path in names.items()}
    for split, source in sources.items():
        if source.classes != sources["train"].classes:
            difference = sorted(set(source.classes) ^ set(sources["train"].classes))
            raise DataError(
                f"Expected the same classes in {names['train']} and {names[split]}; only in one of them: {difference}"
            )
    if len(sources) == 1:
        return _stratified(sources["train"], validation_fraction, seed)
    if "val" not in sources:
        sources["val"] = sources["test"]
    return sources


def _classes_of(folder):
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [sorted(str(f) for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file()) for path in classes]
    empty = [path.name for path, found in zip(classes, files, strict=True) if not found]
    if len(classes) < 2 or empty:
        problem = f"no images ({', '.join(SUFFIXES)}) in {empty}" if empty else f"{len(classes)} subfolders"
        raise DataError(
            f"Expected two or more subfolders of {folder}, one for each class, with images in each; found {problem}"
        )
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return IndexedSource(np.array([path for found in files for path in found]), labels, tuple(path.name for path in classes))


def _stratified(source, fraction, seed):
    """Holds out a part of every class."""
    rng, held_out = np.random.default_rng(seed), []
    for label, name in enumerate(source.classes):
        indices = rng.permutation(np.flatnonzero(source.labels == label))
        if len(indices) < 2:
            raise DataError(f"Expected two or more images of every class, to hold one out; {name!r} has {len(indices)}")
        held_out.append(indices[: max(1, round(fraction * len(indices)))])
    held_out = np.sort(np.concatenate(held_out))
    rest = np.setdiff1d(np.arange(len(source)), held_out)
    return {"train": source.subset(rest), "val": source.subset(held_out)}


def from_tfds(
    name: str, data_dir: str | os.PathLike | None = None, validation_fraction: float = 0.2
) -> dict[str, StreamSource]:
    """Returns the images of a dataset of TensorFlow Datasets, which is downloaded and prepared if need be.

    Args:
        name: such as `"imagenet2012"`, `"cifar10"`, `"oxford_flowers102"`.
        data_dir: where it is or will be; by default where TensorFlow Datasets keeps it.
        validation_fraction: the part to hold out, the end of the training split, where there is no other split.

    Returns:
        Sources by `"train"`, `"val"` (its validation split, or its test split) and `"test"`.

    Raises:
        DataError: if there is no such dataset, or if it cannot be prepared, or if it has no images with labels.
        ImportError: if tensorflow-datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError('Named datasets need tensorflow-datasets: pip install "keras-t2t[train]"') from error
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:  # of the registry, the network, the file system, and of every dataset's own making
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"Cannot prepare the dataset {name!r} of TensorFlow Datasets: {reason}") from error
    features = builder.info.features
    names = set(features.keys()) if hasattr(features, "keys") else set()
    if not {"image", "label"} <= names or not isinstance(features["label"], tfds.features.ClassLabel):
        raise DataError(f"Expected a dataset of images with labels of classes; {name!r} has {sorted(names)}")
    splits = {SPLITS[split]: split for split in reversed(builder.info.splits) if split in SPLITS}
    if "train" not in splits:
        raise DataError(f"Expected a split for training; {name!r} has {list(builder.info.splits)}")
    if len(splits) == 1:
        rest = min(round(100 * (1 - validation_fraction)), 99)
        splits = {"train": f"{splits['train']}[:{rest}%]", "val": f"{splits['train']}[{rest}%:]"}
    sources = {part: _stream(builder, split) for part, split in splits.items()}
    return {"val": sources.get("test"), **sources} if "val" not in sources else sources


def _stream(builder, split):
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=tfds.ReadConfig(try_autocache=False)
    )
    dataset = dataset.map(lambda element: (element["image"], element["label"]), tf.data.AUTOTUNE, deterministic=True)
    return StreamSource(dataset, builder.info.splits[split].num_examples, tuple(builder.info.features["label"].names))


def open_data(place: str, data_dir: str | os.PathLike | None = None, validation_fraction: float = 0.2, seed: int = 0) -> dict:
    """Returns the sources of `"tfds:NAME"`, a dataset of TensorFlow Datasets, or of a folder.

    Raises:
        DataError: as `from_tfds` and `from_folder`.
    """
    if str(place).startswith("tfds:"):
        return from_tfds(str(place).removeprefix("tfds:"), data_dir, validation_fraction)
    return from_folder(place, validation_fraction, seed)
