"""The average precision of an object detector, as COCO defines it."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_t2t.data import BoxSource, IndexedSource
from keras_t2t.data.check import next_batch
from keras_t2t.data.decoding import decode_file, without_autograph
from keras_t2t.data.preparation import check_several
from keras_t2t.data.views import resized
from keras_t2t.extras import import_extra


@dataclasses.dataclass(frozen=True)
class Detections:
    """The boxes that a detector found in an image.

    Attributes:
        boxes: Boxes as (x_min, y_min, x_max, y_max) in pixels of the image, of shape `(n, 4)`.
        labels: Class indices, of shape `(n,)`.
        scores: Confidences in [0, 1], of shape `(n,)`.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class DetectionReport:
    """The results of evaluating a detector.

    Attributes:
        classes: Names of the classes.
        average_precisions: Average precision of each class `(classes,)`, which is the mean over the thresholds 0.5, 0.55, ...,
            0.95 for the intersection over union of a correct box; NaN for a class without boxes.
        average_precisions_at_50: The same at a threshold of 0.5 only.
    """

    classes: tuple[str, ...]
    average_precisions: np.ndarray
    average_precisions_at_50: np.ndarray

    @property
    def average_precision(self) -> float:
        """Mean over the classes (COCO's AP)."""
        return float(np.nanmean(self.average_precisions))

    @property
    def average_precision_at_50(self) -> float:
        """Mean over the classes at a threshold of 0.5 (COCO's AP50)."""
        return float(np.nanmean(self.average_precisions_at_50))


def coco_average_precision(detections: Sequence[Detections], source: BoxSource) -> DetectionReport:
    """Computes the average precision with pycocotools.

    Args:
        detections: What the detector found in each image of `source`, in the same order.
        source: Images with the true boxes.

    Returns:
        A `DetectionReport`.

    Raises:
        ImportError: If pycocotools is not installed.

    Example:

    >>> boxes = np.array([[[2, 3, 20, 30]]], "float32")
    >>> source = keras_t2t.data.BoxSource(np.array(["cat.jpg"]), boxes, np.array([[0]]), ("cat",))
    >>> found = keras_t2t.training.Detections(boxes[0], np.array([0]), np.array([0.9]))
    >>> round(keras_t2t.training.coco_average_precision([found], source).average_precision, 3)
    1.0
    """
    if len(detections) != len(source):
        raise ValueError(f"Expected detections for each of {len(source)} images; received: {len(detections)}")
    coco = import_extra("pycocotools.coco", "The average precision needs pycocotools", "detect")
    cocoeval = import_extra("pycocotools.cocoeval", "The average precision needs pycocotools", "detect")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": index} for index in range(len(source))],
            "categories": [{"id": index} for index in range(len(source.classes))],
            "annotations": _annotations(_truth(source)),
        }
        truth.createIndex()
        found = coco.COCO()
        rows = ((each.boxes, each.labels, {"score": each.scores}) for each in detections)
        found.dataset = {**truth.dataset, "annotations": _annotations(rows)}
        found.createIndex()
        evaluation = cocoeval.COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (thresholds, recalls, classes), all areas, 100 detections
    precision = np.where(precision < 0, np.nan, precision)
    return DetectionReport(source.classes, precision.mean((0, 1)), precision[0].mean(0))


def _truth(source):
    """Yields the boxes of each image, their labels, and which of them are crowds in the sense of COCO: the ignored ones."""
    for boxes, labels, *ignored in zip(source.boxes, source.labels, *_ignored(source), strict=True):
        crowds = np.repeat([0, 1], [len(labels), len(ignored[1])])
        yield np.concatenate([boxes, ignored[0]]), np.concatenate([labels, ignored[1]]), {"iscrowd": crowds}


def _ignored(source):
    """Returns the ignored boxes and labels of a source, which may have none."""
    if source.ignored_boxes is None:
        return np.empty((len(source), 0, 4)), np.empty((len(source), 0), "int32")
    return source.ignored_boxes, source.ignored_labels


def _annotations(rows):
    """Returns annotations as in a COCO file, for the boxes, labels and properties of each image. Labels of -1 are no boxes."""
    annotations: list[dict[str, Any]] = []
    for image, (boxes, labels, properties) in enumerate(rows):
        for row in np.flatnonzero(labels >= 0):
            x_min, y_min, x_max, y_max = map(float, boxes[row])
            width, height = x_max - x_min, y_max - y_min
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(labels[row]),
                "bbox": [x_min, y_min, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
            annotations.append({**annotation, **{name: values[row].item() for name, values in properties.items()}})
    return annotations


def detect(
    model: keras.Model,
    images: BoxSource | Sequence[str | os.PathLike],
    image_size: tuple[int, int] | None = None,
    batch_size: int = 8,
) -> list[Detections]:
    """Runs a detector on images.

    Args:
        model: A detector of KerasHub or keras-cv with boxes in the format "xyxy", such as one made by `keras_t2t.hub.detector`.
        images: A source, or paths of image files. Each image is resized to `image_size`.
        image_size: Height and width of the images for the model. Defaults to the size that the model was built for.
        batch_size: Number of images in a batch.

    Returns:
        The boxes in each image, in pixels of the image file.

    Raises:
        ValueError: If `images` is a single path, or if `image_size` is missing for a model of any size.
        DataError: If an image cannot be read.
    """
    check_several(images)
    size = image_size or model.input_shape[1:3]
    if None in size:
        raise ValueError("Expected an image_size, because the model takes images of any size")

    @without_autograph
    def view(path):
        pixels = decode_file(tf.io.read_file(path))
        return resized(pixels, size), tf.shape(pixels)[:2]

    source = images if isinstance(images, BoxSource) else _unlabeled(images)
    paths = tf.constant(source.images, tf.string)  # also if there are none
    views = tf.data.Dataset.from_tensor_slices(paths).map(view, tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator()
    detections = []
    while batch := next_batch(views, batch_size, source):
        pixels, sides = zip(*batch, strict=True)
        outputs = _predict(model, np.stack(pixels))
        labels = outputs["labels"] if "labels" in outputs else outputs["classes"]
        rows = zip(outputs["boxes"], labels, outputs["confidence"], outputs["num_detections"], sides, strict=True)
        for boxes, classes, scores, count, (height, width) in rows:
            scale = np.array([width / size[1], height / size[0]] * 2)
            detections.append(Detections(boxes[:count] * scale, classes[:count].astype(int), scores[:count]))
    return detections


def _unlabeled(paths):
    """Returns a source for image files, all in one class."""
    return IndexedSource(np.array([os.fspath(path) for path in paths], str), np.zeros(len(paths), int), ("image",))


def _predict(model, images):
    """Returns the boxes in a batch of images as arrays.

    KerasHub 0.32 cannot suppress overlapping boxes in `predict` once it was called with batches of two sizes.
    """
    inputs = images if getattr(model, "preprocessor", None) is None else model.preprocessor(images)
    outputs = model.decode_predictions(model(inputs, training=False), inputs)
    return {name: keras.ops.convert_to_numpy(values) for name, values in outputs.items()}


class DetectionEvaluation(keras.callbacks.Callback):
    """Evaluates a detector after every epoch and adds `val_average_precision` and `val_average_precision_at_50` to the logs.

    Args:
        source: Images with the true boxes.
        image_size: See `detect`.
        every: Number of epochs between evaluations.
    """

    def __init__(self, source: BoxSource, image_size: tuple[int, int] | None = None, every: int = 1):
        super().__init__()
        self.source, self.image_size, self.every = source, image_size, every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None and (epoch + 1) % self.every == 0:
            report = coco_average_precision(detect(self.model, self.source, self.image_size), self.source)
            logs["val_average_precision"] = report.average_precision
            logs["val_average_precision_at_50"] = report.average_precision_at_50
