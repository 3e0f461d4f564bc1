"""How good a classifier is: overall, for each class, and what it takes for what."""

import dataclasses
import pathlib
import time

import keras
import numpy as np

from keras_t2t.data import ImageSource, as_input, evaluation_batches
from keras_t2t.figures import new_figure
from keras_t2t.inference import keras_runtime
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """What a classifier makes of labeled images.

    Attributes:
        classes: names of the classes.
        confusion: int array (classes, classes): images of each class (row) that were taken for each class (column).
        top5: part of the images whose class is among the five likeliest; None for five classes or fewer.
        images_per_second: rate of the whole evaluation, reading and resizing included.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    top5: float | None
    images_per_second: float

    @property
    def top1(self) -> float:
        """Part of the images that were taken for what they are."""
        return self.confusion.trace() / self.confusion.sum()

    @property
    def class_accuracies(self) -> np.ndarray:
        """The same for each class (classes,); nan for a class without images."""
        with np.errstate(invalid="ignore"):
            return self.confusion.diagonal() / self.confusion.sum(1)


def evaluate(
    model: keras.Model | Runtime, source: ImageSource, batch_size: int = 64, preprocessing: Preprocessing | None = None
) -> EvaluationReport:
    """Measures the accuracy of a classifier. Classes are matched by name if the names are the same, otherwise by index.

    Args:
        model: A classifier built by this package, or an exported one opened by `keras_t2t.open_exported`.
        source: The labeled images.
        batch_size: Number of images in a batch.
        preprocessing: How to resize and crop instead of `keras_t2t.preprocessing_of(model)`.

    Raises:
        ValueError: If the model was not built by this package, or if it does not have as many classes as the source.
    """
    runtime = model if isinstance(model, Runtime) else keras_runtime(model)
    spec, count = runtime.spec, len(source.classes)
    names = spec.labels or source.classes
    order = [names.index(name) for name in source.classes] if set(names) == set(source.classes) else range(count)
    confusion, in_top5, start = np.zeros((count, count), "int64"), 0, time.perf_counter()
    for views, targets in evaluation_batches(source, preprocessing or spec.preprocessing, batch_size).as_numpy_iterator():
        scores = runtime.run(as_input(views, spec, runtime.input_dtype))
        if scores.shape[-1] != count:
            raise ValueError(f"The model has {scores.shape[-1]} classes and the data have {count}")
        scores = scores[:, order]
        labels = np.argmax(targets, -1)
        np.add.at(confusion, (labels, scores.argmax(-1)), 1)
        in_top5 += (np.argsort(-scores, -1)[:, :5] == labels[:, None]).sum()
    seconds = time.perf_counter() - start
    return EvaluationReport(source.classes, confusion, in_top5 / len(source) if count > 5 else None, len(source) / seconds)


def draw_confusion(report: EvaluationReport, path: pathlib.Path):
    """Draws the confusion matrix as a PNG: each row as parts of its class."""
    count = len(report.classes)
    figure = new_figure(*(min(max(4, 0.45 * count + 2.5), 16),) * 2)
    axes = figure.subplots()
    parts = report.confusion / np.maximum(report.confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(parts, cmap="cividis", vmin=0, vmax=1)
    if count <= 30:
        axes.set_xticks(range(count), report.classes, rotation=60, ha="right")
        axes.set_yticks(range(count), report.classes)
        for row, column in np.argwhere(parts >= 0.005):
            color = "black" if parts[row, column] > 0.5 else "white"
            axes.text(column, row, f"{100 * parts[row, column]:.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="taken for", ylabel="is")
    figure.colorbar(image, shrink=0.7, label="part of the class")
    figure.savefig(path, dpi=120)
