"""Predictions for image files, from both Keras models and exported models."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np

from keras_t2t.configs import check_value, is_count
from keras_t2t.models import spec_of
from keras_t2t.models.graph import image_input
from keras_t2t.preprocessing import ModelSpec, Preprocessing
from keras_t2t.runtime import Runtime


def keras_runtime(model: keras.Model) -> Runtime:
    """Returns a Keras model as a `Runtime`. It is compiled on the first batch.

    Raises:
        ValueError: If the model was not built by this package.
    """

    def run(images):
        (output,) = keras.tree.flatten(model.predict_on_batch(images))
        return np.asarray(output, "float32")

    return Runtime(
        name=f"Keras, {keras.backend.backend()}",
        run=run,
        input_shape=tuple(image_input(model).shape),
        input_dtype="float32",
        known_spec=spec_of(model),
    )


def probabilities(scores: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Returns the outputs of a classifier as float64 probabilities `(n, classes)`.

    Logits go through a softmax, and a single logit through a sigmoid. Independent scores are returned as they are.

    Raises:
        ValueError: If the model is not a classifier.
    """
    _check_classifier(spec)
    if np.ndim(scores) != 2:
        raise ValueError("Expected a classifier; this model returns scores for every pixel")
    scores = np.asarray(scores, "float64")
    if spec.output != "logits":
        return scores
    if scores.shape[-1] == 1:
        return np.exp(-np.logaddexp(0, -scores))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def _check_classifier(spec):
    if spec.output == "features":
        raise ValueError("Expected a classifier; this model returns features")


def display_labels(spec: ModelSpec, classes: int) -> tuple[str, ...]:
    """Returns the labels of a model, or the indices of its classes if it has none."""
    return spec.labels or tuple(map(str, range(classes)))


def predict_images(
    model: keras.Model | Runtime,
    paths: Sequence[str | os.PathLike],
    top: int = 5,
    *,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
) -> list[list[tuple[str, float]]]:
    """Returns the top classes of image files.

    Args:
        model: A classifier built by this package, or an exported one opened by `keras_t2t.open_exported`.
        paths: Image files of any kind that `keras_t2t.load_image` reads.
        top: Number of classes to return for each image.
        batch_size: Number of images to process at a time.
        preprocessing: How to resize and crop the images. Defaults to `keras_t2t.preprocessing_of(model)`.

    Returns:
        For each image, a list of `(label, probability)` pairs, highest probability first. If the model stores no labels, they
        are the indices of the classes.

    Raises:
        ValueError: If `paths` is a single path, if a file is not an image, or if the model is not a classifier built by this
            package.
        OSError: If a file cannot be read.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> [(label, _)] = keras_t2t.predict_images(model, ["examples/images/frog.jpg"], top=1)[0]
    >>> label
    'frog'
    """
    results = []
    for _, result in stream_predictions(model, paths, top, batch_size=batch_size, preprocessing=preprocessing):
        if isinstance(result, Exception):
            raise result
        results.append(result)
    return results


def stream_predictions(
    model: keras.Model | Runtime,
    paths: Iterable[str | os.PathLike],
    top: int = 5,
    *,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
) -> Iterator[tuple[str | os.PathLike, list[tuple[str, float]] | ValueError | OSError]]:
    """Yields the top classes of any number of image files. Only one batch of images is in memory at a time.

    Args:
        model: A classifier built by this package, or an exported one opened by `keras_t2t.open_exported`.
        paths: Image files. Paths are read lazily, one batch at a time.
        top: Number of classes to return for each image.
        batch_size: Number of images to process at a time.
        preprocessing: How to resize and crop the images. Defaults to `keras_t2t.preprocessing_of(model)`.

    Yields:
        For each path in turn, `(path, predictions)`. The predictions are `(label, probability)` pairs, as in `predict_images`.
        If the file cannot be read, the exception takes their place. It is not raised, so the other files are predicted.

    Raises:
        ValueError: If `paths` is a single path, if `top` or `batch_size` is not positive, or if the model is not a classifier
            built by this package.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> for path, result in stream_predictions(model, ["examples/images/frog.jpg", "README.md"], top=1):
    ...     print(path, type(result).__name__)
    examples/images/frog.jpg list
    README.md ValueError
    """
    from keras_t2t.data.preparation import check_several  # needs TensorFlow, regardless of the Keras backend

    check_several(paths)
    for name, value in (("top", top), ("batch_size", batch_size)):
        check_value(is_count(value), name, "a positive integer", value)
    runtime = model if isinstance(model, Runtime) else keras_runtime(model)
    _check_classifier(runtime.spec)
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, batch_size)):
        views = [_view_or_error(path, preprocessing or runtime.spec.preprocessing) for path in batch]
        rows = iter(_view_probabilities(runtime, [view for view in views if isinstance(view, np.ndarray)]))
        for path, view in zip(batch, views, strict=True):
            yield path, _top_classes(next(rows), runtime.spec, top) if isinstance(view, np.ndarray) else view


def _view_or_error(path, preprocessing):
    from keras_t2t.data import read_view

    try:
        return read_view(path, preprocessing)
    except (ValueError, OSError) as error:
        return error


def _view_probabilities(runtime, views):
    from keras_t2t.data import as_input

    if not views:
        return []
    images = as_input(np.stack(views), runtime.spec, runtime.input_dtype)
    return probabilities(runtime.run(images), runtime.spec)


def _top_classes(row, spec, top):
    labels = display_labels(spec, len(row))
    return [(labels[index], float(row[index])) for index in np.argsort(-row, kind="stable")[:top]]
