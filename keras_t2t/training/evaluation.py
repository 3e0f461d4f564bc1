"""The accuracy of a classifier: overall, for each class, and as a confusion matrix."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import keras
import numpy as np

from keras_t2t.data import ImageSource, as_input, evaluation_batches
from keras_t2t.data.check import explain_data_errors
from keras_t2t.figures import new_figure
from keras_t2t.inference import keras_runtime
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """The results of evaluating a classifier on labeled images.

    Attributes:
        classes: Names of the classes.
        confusion: Confusion matrix, an int array `(classes, classes)`: number of images by true class (row) and predicted
            class (column).
        top5: Fraction of images whose class is among the top five predictions; `None` for five classes or fewer.
        images_per_second: Rate of the evaluation, including reading and resizing. If there are several batches, the first one,
            which compiles the model, does not count.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    top5: float | None
    images_per_second: float

    @property
    def top1(self) -> float:
        """Fraction of images classified correctly."""
        return self.confusion.trace() / self.confusion.sum()

    @property
    def class_accuracies(self) -> np.ndarray:
        """Fraction of images classified correctly in each class `(classes,)`; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return self.confusion.diagonal() / self.confusion.sum(1)


def evaluate(
    model: keras.Model | Runtime, source: ImageSource, batch_size: int = 64, preprocessing: Preprocessing | None = None
) -> EvaluationReport:
    """Measures the accuracy of a classifier.

    Classes are matched by name if the model and the images have the same names. Otherwise, they are matched by index.

    Args:
        model: A classifier built by `keras_t2t`, or an exported model opened with `keras_t2t.open_exported`.
        source: Labeled images.
        batch_size: Number of images in a batch.
        preprocessing: How to resize and crop the images. Defaults to `keras_t2t.preprocessing_of(model)`.

    Returns:
        An `EvaluationReport`.

    Raises:
        ValueError: If the model was not built by `keras_t2t`, or if the number of classes differs from that of the source.
        DataError: If an image cannot be read, or if a label is out of range.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    >>> source = keras_t2t.data.from_arrays(images, [0, 1, 2, 3], keras_t2t.labels_of(model))
    >>> keras_t2t.training.evaluate(model, source).confusion.shape
    (10, 10)
    """
    runtime = model if isinstance(model, Runtime) else keras_runtime(model)
    spec, count = runtime.spec, len(source.classes)
    order = class_order(spec.labels, source.classes)
    confusion, in_top5 = np.zeros((count, count), "int64"), 0
    start, untimed = time.perf_counter(), 0
    batches = evaluation_batches(source, preprocessing or spec.preprocessing, batch_size)
    with explain_data_errors(source):
        for views, targets in batches.as_numpy_iterator():
            scores = runtime.run(as_input(views, spec, runtime.input_dtype))
            _check_scores(scores, count)
            scores = scores[:, order]
            labels = np.argmax(targets, -1)
            np.add.at(confusion, (labels, scores.argmax(-1)), 1)
            in_top5 += (np.argsort(-scores, -1)[:, :5] == labels[:, None]).sum()
            if not untimed and len(targets) < len(source):
                start, untimed = time.perf_counter(), len(targets)
    rate = (len(source) - untimed) / (time.perf_counter() - start)
    return EvaluationReport(source.classes, confusion, in_top5 / len(source) if count > 5 else None, rate)


def _check_scores(scores, count):
    if scores.ndim != 2:
        raise ValueError("Expected a classifier; this model returns scores for every pixel. Use evaluate_segmenter")
    if scores.shape[-1] != count:
        raise ValueError(f"Expected a model with {count} classes, like the data; received: {scores.shape[-1]} classes")


def class_order(labels: Sequence[str] | None, classes: Sequence[str]) -> Sequence[int]:
    """Returns the index of each of the classes of a source among the outputs of a model.

    Classes are matched by name if the model has the same names, and otherwise by index. Two classes of ImageNet are called
    "crane", so names that are not distinct do not count.
    """
    distinct = labels is not None and len(set(labels)) == len(labels) == len(classes)
    if labels is None or not distinct or set(labels) != set(classes):
        return range(len(classes))
    return [labels.index(name) for name in classes]


def draw_confusion(report: EvaluationReport, path: pathlib.Path) -> None:
    """Saves the confusion matrix as a PNG, with each row as fractions of its class. Cells without images stay blank."""
    count = len(report.classes)
    names = [name if len(name) <= 25 else f"{name[:24]}…" for name in report.classes] if count <= 30 else []
    figure = new_figure(*(min(max(4, 0.45 * count + 2.5 + 0.06 * max(map(len, names), default=0)), 16),) * 2)
    axes = figure.subplots()
    fractions = report.confusion / np.maximum(report.confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(np.ma.masked_equal(fractions, 0), cmap="cividis", vmin=0, vmax=1)
    if names:
        axes.set_xticks(range(count), names, rotation=60, ha="right", parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        for row, column in np.argwhere(fractions):
            percent = 100 * fractions[row, column]
            text, color = "<1" if percent < 1 else f"{percent:.0f}", "black" if percent > 50 else "white"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, shrink=0.7, label="fraction of the true class")
    figure.savefig(path, dpi=120)
