"""What is wrong with data: files that cannot be read, or are left out, and labels outside of the classes."""

import contextlib
import os
import pathlib

import tensorflow as tf

from keras_t2t.data.decoding import decode
from keras_t2t.data.sources import OUTSIDE, SUFFIXES, IndexedSource
from keras_t2t.errors import DataError


def other_files(folder: str | os.PathLike) -> list[str]:
    """Returns the files of a folder of images that are no images by their names."""
    files = (path for path in pathlib.Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(str(path) for path in files if path.suffix.lower() not in SUFFIXES)


def find_bad_files(source: IndexedSource) -> list[str]:
    """Returns the files of a source that cannot be decoded as images, after a try of each."""
    images = tf.constant(source.images)

    def try_one(number):
        return number, tf.size(decode(tf.io.read_file(images[number])))

    tried = tf.data.Dataset.range(len(source)).map(try_one, tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    good = {number for number, _ in tried.as_numpy_iterator()}
    return [str(path) for number, path in enumerate(source.images) if number not in good]


@contextlib.contextmanager
def data_errors_named(*sources):
    """Turns errors of TensorFlow about files that cannot be read, or about labels, into a `DataError` that says so."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        if OUTSIDE in str(error):
            raise DataError(f"Expected labels from 0 to {len(sources[0].classes) - 1}; some are outside") from error
        bad = [path for source in sources if source.from_files for path in find_bad_files(source)]
        if not bad:
            raise
        raise DataError(f"{len(bad)} files cannot be read, such as {bad[0]}; remove them, or set skip_bad_files") from error


def without_bad_files(source: IndexedSource) -> tuple[IndexedSource, list[str]]:
    """Returns the source without the files that cannot be decoded, and those files.

    Raises:
        DataError: if a class has no images left.
    """
    bad = set(find_bad_files(source))
    rest = source.subset([number for number, path in enumerate(source.images) if str(path) not in bad])
    empty = [name for label, name in enumerate(source.classes) if label not in rest.labels]
    if empty:
        raise DataError(f"No image of {empty} can be read")
    return rest, sorted(bad)
