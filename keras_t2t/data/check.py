"""Finding bad data: files that cannot be read or are not images, and labels that are out of range."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_t2t.data.boxes import BoxSource
from keras_t2t.data.decoding import decode_file, without_autograph
from keras_t2t.data.masks import MaskSource
from keras_t2t.data.problems import describe_problem
from keras_t2t.data.sources import LABEL_OUT_OF_RANGE, SUFFIXES, IndexedSource, Source, path_tensor, visible_files
from keras_t2t.errors import DataError, counted


def other_files(folder: str | os.PathLike) -> list[str]:
    """Returns the files in a folder whose suffix is not that of an image, sorted. Hidden files are ignored."""
    return sorted(str(path) for path in visible_files(folder) if path.suffix.lower() not in SUFFIXES)


def find_bad_files(source: IndexedSource | MaskSource | BoxSource) -> list[str]:
    """Decodes all files to find those that cannot be decoded as images.

    Args:
        source: Source whose images are files.

    Returns:
        Paths of the bad files, in the order of the source.
    """
    return _bad_files(source.images)


def _bad_files(files):
    paths = path_tensor(files)

    @without_autograph
    def decoded_size(index):
        return index, tf.size(decode_file(tf.io.read_file(paths[index])))

    decoded = tf.data.Dataset.range(len(files)).map(decoded_size, tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    good = {index for index, _ in decoded.as_numpy_iterator()}
    return [str(path) for index, path in enumerate(files) if index not in good]


@contextlib.contextmanager
def explain_data_errors(*sources: Source, can_skip: bool = False) -> Iterator[None]:
    """Turns TensorFlow errors about unreadable files, bad masks or out-of-range labels into a `DataError` that explains them.

    Args:
        *sources: Sources of the images that are read inside the context.
        can_skip: Whether the images are read with a recipe, which could skip the unreadable ones.

    Raises:
        DataError: If files cannot be read, or labels are out of range, also those in masks.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.PermissionDeniedError) as error:
        if LABEL_OUT_OF_RANGE in str(error):
            raise DataError(f"Expected labels from 0 to {len(sources[0].classes) - 1}; some are out of range") from error
        images = (np.asarray(getattr(source, "images", ())) for source in sources)
        bad = [path for paths in images if paths.dtype.kind == "U" for path in _bad_files(paths)]
        if not bad:
            _check_masks(sources)
            raise
        example = f"{bad[0]}: {describe_problem(bad[0])}"
        what, them = (example, "it") if len(bad) == 1 else (f"{counted(len(bad), 'file')}, such as {example}", "them")
        skip = ", or use skip_bad_files=True in the recipe" if can_skip else ""
        raise DataError(f"Cannot read {what}. Remove {them}{skip}") from error


def _check_masks(sources):
    for source in sources:
        if isinstance(source, MaskSource):
            for index in range(len(source)):
                source.read_mask(index)  # raises DataError


def next_batch(elements: Iterator, batch_size: int, source: Source) -> list:
    """Returns the next elements, at most `batch_size`, that are read from a source; see `explain_data_errors`."""
    with explain_data_errors(source):
        return list(itertools.islice(elements, batch_size))


def without_bad_files(source: IndexedSource) -> tuple[IndexedSource, list[str]]:
    """Drops the files that cannot be decoded as images.

    Args:
        source: Source whose images are files.

    Returns:
        The source without the bad files, and the sorted paths of the bad files.

    Raises:
        DataError: If a class has no images left.
    """
    bad = set(find_bad_files(source))
    rest = source.subset([index for index, path in enumerate(source.images) if str(path) not in bad])
    empty = [name for label, name in enumerate(source.classes) if label not in rest.labels]
    if empty:
        raise DataError(f"Expected at least one readable image in every class; found none in {empty}")
    return rest, sorted(bad)
