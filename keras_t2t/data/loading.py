"""Opening datasets: folders of images, and TensorFlow Datasets."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_t2t.configs import check_value, is_rate
from keras_t2t.data.sources import SUFFIXES, ImageSource, IndexedSource, StreamSource, images_in_folder, is_visible
from keras_t2t.errors import DataError
from keras_t2t.extras import import_extra

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "test": "test",
    "testing": "test",
}


def from_folder(folder: str | os.PathLike, validation_fraction: float = 0.2, seed: int = 0) -> dict[str, IndexedSource]:
    """Returns the images in a folder that has one subfolder for each class.

    The class subfolders may be in the folder itself, or in its subfolders `train` and `val` (or `validation`, or `test`). If
    there are only training images, a fraction of every class is held out for validation. Hidden files are left out.

    Args:
        folder: Path of the folder.
        validation_fraction: Fraction in [0, 1) of each class to hold out if there is no other split. At least one image of each
            class is held out, and one is left for training.
        seed: Seed for choosing the images to hold out.

    Returns:
        Sources under `"train"`, `"val"`, and `"test"` if there is a test split, which is also used as `"val"` if there is no
        validation split.

    Raises:
        DataError: If there are fewer than two classes, if a class has too few images, if the splits have different classes, or
            if it is not clear which folders are splits.
        ValueError: If `validation_fraction` is not in [0, 1).
    """
    check_value(is_rate(validation_fraction), "validation_fraction", "a number in [0, 1)", validation_fraction)
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"Expected a folder of images with one subfolder for each class; there is no folder {folder}")
    folders = _split_folders(folder)
    if folders and "train" not in folders:
        raise DataError(
            f"Expected a folder 'train' next to {', '.join(sorted(folders))} in {folder}, or one subfolder for each class"
        )
    if not folders:
        return _hold_out(_read_classes(folder), validation_fraction, seed)
    sources = {split: _read_classes(path) for split, path in folders.items()}
    for split, source in sources.items():
        if source.classes != sources["train"].classes:
            difference = sorted(set(source.classes) ^ set(sources["train"].classes))
            raise DataError(
                f"Expected the same classes in {folders['train']} and {folders[split]}; only in one of them: {difference}"
            )
    if len(sources) == 1:
        return _hold_out(sources["train"], validation_fraction, seed)
    if "val" not in sources:
        sources["val"] = sources["test"]
    return sources


def _split_folders(folder):
    """Returns the subfolders of the splits, by split. A class may have the name of a split, such as a class of trains."""
    named = [path for path in _subfolders(folder) if path.name.lower() in SPLITS]
    others = [path.name for path in _subfolders(folder) if path not in named and images_in_folder(path)]
    if others and not any(map(_subfolders, named)):
        return {}
    splits = [SPLITS[path.name.lower()] for path in named]
    if (named and others) or len(set(splits)) < len(splits):
        names = [path.name for path in named]
        raise DataError(f"Expected either class folders or split folders in {folder}; found {[*names, *others[:3]]}")
    return dict(zip(splits, named, strict=True))


def _subfolders(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))


def _read_classes(folder):
    classes = _subfolders(folder)
    files = [images_in_folder(path) for path in classes]
    empty = [path.name for path, found in zip(classes, files, strict=True) if not found]
    if len(classes) < 2 or empty:
        problem = f"no images ({', '.join(SUFFIXES)}) in {empty}" if empty else f"{len(classes)} subfolders"
        raise DataError(
            f"Expected two or more subfolders of {folder}, one for each class, with images in each; found {problem}"
        )
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    names = tuple(os.fsencode(path.name).decode("utf-8", "replace") for path in classes)  # saved models need valid UTF-8
    return IndexedSource(np.array([path for found in files for path in found]), labels, names)


def _hold_out(source, fraction, seed):
    """Holds out a fraction of every class."""
    rng, held_out_by_class = np.random.default_rng(seed), []
    for label, name in enumerate(source.classes):
        indices = rng.permutation(np.flatnonzero(source.labels == label))
        if len(indices) < 2:
            raise DataError(f"Expected two or more images in every class, to hold one out; {name!r} has {len(indices)}")
        held_out_by_class.append(indices[: min(max(1, round(fraction * len(indices))), len(indices) - 1)])
    held_out = np.sort(np.concatenate(held_out_by_class))
    rest = np.setdiff1d(np.arange(len(source)), held_out)
    return {"train": source.subset(rest), "val": source.subset(held_out)}


def from_tfds(
    name: str, data_dir: str | os.PathLike | None = None, validation_fraction: float = 0.2
) -> dict[str, StreamSource]:
    """Returns the images of a dataset from TensorFlow Datasets, which is downloaded and prepared if necessary.

    Args:
        name: Name of the dataset, such as `"imagenet2012"`, `"cifar10"` or `"oxford_flowers102"`.
        data_dir: Folder for prepared datasets. Defaults to the one that TensorFlow Datasets uses.
        validation_fraction: Fraction in [0, 1) of the training split to hold out if there is no other split, rounded to a
            whole percentage from 1% to 99%. It is taken from the end.

    Returns:
        Sources under `"train"`, `"val"`, and `"test"` if there is a test split, which is also used as `"val"` if there is no
        validation split.

    Raises:
        DataError: If there is no such dataset, if it cannot be prepared, or if it does not have images with class labels.
        ImportError: If tensorflow-datasets is not installed.
        ValueError: If `validation_fraction` is not in [0, 1).
    """
    check_value(is_rate(validation_fraction), "validation_fraction", "a number in [0, 1)", validation_fraction)
    tfds = import_extra("tensorflow_datasets", 'Datasets named "tfds:NAME" require tensorflow-datasets', "train")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:  # many types: from the registry, the network, the file system or a dataset
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"Cannot prepare the dataset {name!r} of TensorFlow Datasets: {reason}") from error
    features = builder.info.features
    names = set(features.keys()) if hasattr(features, "keys") else set()
    if not {"image", "label"} <= names or not isinstance(features["label"], tfds.features.ClassLabel):
        raise DataError(f"Expected a dataset of images with class labels; {name!r} has the features {sorted(names)}")
    splits = {SPLITS[split]: split for split in reversed(builder.info.splits) if split in SPLITS}
    if "train" not in splits:
        raise DataError(f"Expected a dataset with a training split; {name!r} has the splits {list(builder.info.splits)}")
    if len(splits) == 1:
        percent = min(max(round(100 * (1 - validation_fraction)), 1), 99)
        splits = {"train": f"{splits['train']}[:{percent}%]", "val": f"{splits['train']}[{percent}%:]"}
    sources = {name: _stream(tfds, builder, split) for name, split in splits.items()}
    return sources if "val" in sources else {"val": sources["test"], **sources}


def _stream(tfds, builder, split):
    dataset = builder.as_dataset(
        split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=tfds.ReadConfig(try_autocache=False)
    )
    dataset = dataset.map(lambda element: (element["image"], element["label"]), tf.data.AUTOTUNE, deterministic=True)
    return StreamSource(dataset, builder.info.splits[split].num_examples, tuple(builder.info.features["label"].names))


def open_data(
    data: str | os.PathLike, data_dir: str | os.PathLike | None = None, validation_fraction: float = 0.2
) -> Mapping[str, ImageSource]:
    """Returns the images in a folder, or the images of a dataset from TensorFlow Datasets.

    Args:
        data: Path of a folder, as for `from_folder`, or `"tfds:NAME"`, where NAME is a dataset for `from_tfds`.
        data_dir: Folder for prepared datasets; see `from_tfds`.
        validation_fraction: Fraction of the images to hold out if there is only one split. The choice depends on nothing else.

    Returns:
        Sources under `"train"`, `"val"`, and `"test"` if there is a test split.

    Raises:
        DataError: If the images cannot be used; see `from_folder` and `from_tfds`.
        ImportError: If tensorflow-datasets is needed but not installed.
    """
    if str(data).startswith("tfds:"):
        return from_tfds(str(data).removeprefix("tfds:"), data_dir, validation_fraction)
    return from_folder(data, validation_fraction)
