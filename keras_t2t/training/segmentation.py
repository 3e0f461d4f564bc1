"""The accuracy of a segmenter, overall and for each class."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_t2t.data import MaskSource, as_input
from keras_t2t.data.check import next_batch
from keras_t2t.data.decoding import decode_file, without_autograph
from keras_t2t.data.views import resized
from keras_t2t.inference import keras_runtime
from keras_t2t.preprocessing import ModelSpec, Preprocessing
from keras_t2t.runtime import Runtime
from keras_t2t.training.evaluation import class_order


@dataclasses.dataclass(frozen=True)
class SegmentationReport:
    """The results of evaluating a segmenter. Pixels without a class do not count.

    Attributes:
        classes: Names of the classes.
        confusion: Confusion matrix, an int array `(classes, classes)`: number of pixels by true class (row) and predicted class
            (column).
    """

    classes: tuple[str, ...]
    confusion: np.ndarray

    @property
    def intersections_over_unions(self) -> np.ndarray:
        """Intersection over union (IoU) of each class `(classes,)`; NaN for a class that is neither present nor predicted."""
        intersections = self.confusion.diagonal()
        with np.errstate(invalid="ignore"):
            return intersections / (self.confusion.sum(0) + self.confusion.sum(1) - intersections)

    @property
    def mean_iou(self) -> float:
        """Mean IoU (mIoU) over the classes for which it is defined."""
        return float(np.nanmean(self.intersections_over_unions))

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of pixels that are classified correctly."""
        return float(self.confusion.trace() / self.confusion.sum())


def evaluate_segmenter(
    model: keras.Model | Runtime, source: MaskSource, image_size: tuple[int, int] | None = None, batch_size: int = 8
) -> SegmentationReport:
    """Measures the mean intersection over union of a segmenter, at the resolution of the masks.

    Each image is resized to `image_size`, and the scores are resized to the size of the mask.

    Args:
        model: A model made by `keras_t2t.segmenter`, an exported one opened by `keras_t2t.open_exported`, or a segmenter of
            KerasHub with a preprocessor, such as one made by `keras_t2t.hub.deeplab`.
        source: Images with masks.
        image_size: Height and width of the images for the model. Defaults to the size that the model was built for.
        batch_size: Number of images in a batch.

    Returns:
        A `SegmentationReport`.

    Raises:
        ValueError: If `image_size` is `None` although the model takes images of any size, or if the number of classes of the
            model differs from that of the source.
        DataError: If an image or a mask cannot be read.
    """
    runtime = _as_runtime(model)
    size = image_size or runtime.input_shape[1:3]
    if None in size:
        raise ValueError("Expected an image_size, because the model takes images of any size")
    count = len(source.classes)
    confusion = np.zeros((count, count), "int64")
    order = class_order(runtime.spec.labels, source.classes)
    views = _views(source, size)
    while batch := next_batch(views, batch_size, source):
        images, masks = zip(*batch, strict=True)
        scores = runtime.run(as_input(np.stack(images), runtime.spec, runtime.input_dtype))
        if scores.ndim != 4 or scores.shape[-1] != count:
            raise ValueError(f"Expected scores (batch, height, width, {count}) from the model; received: {scores.shape}")
        for row, mask in zip(scores, masks, strict=True):
            predicted = tf.argmax(tf.image.resize(row[..., order], mask.shape), -1).numpy()
            valid = source.has_class(mask)
            confusion += np.bincount(count * mask[valid] + predicted[valid], minlength=count**2).reshape(count, count)
    return SegmentationReport(source.classes, confusion)


def _as_runtime(model):
    if isinstance(model, Runtime):
        return model
    if getattr(model, "preprocessor", None) is None:
        return keras_runtime(model)
    preprocessing = Preprocessing(image_size=model.input_shape[1:3])  # KerasHub's `predict` normalizes the images
    return Runtime(
        name="KerasHub",
        run=lambda images: model.predict(images, verbose=0),
        input_shape=model.input_shape,
        input_dtype="float32",
        known_spec=ModelSpec(preprocessing=preprocessing, normalizes=True, output="logits"),
    )


def _views(source, size):
    """Yields each image, resized to `size`, and its mask."""

    @without_autograph
    def view(image, mask):
        return resized(decode_file(image), size), mask

    return source.elements(None).map(view, tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator()


class SegmentationEvaluation(keras.callbacks.Callback):
    """Evaluates a segmenter after every epoch and adds `val_mean_iou` to the logs.

    Args:
        source: Images with masks.
        image_size: See `evaluate_segmenter`.
        every: Number of epochs between evaluations.
    """

    def __init__(self, source: MaskSource, image_size: tuple[int, int] | None = None, every: int = 1):
        super().__init__()
        self.source, self.image_size, self.every = source, image_size, every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None and (epoch + 1) % self.every == 0:
            logs["val_mean_iou"] = evaluate_segmenter(self.model, self.source, self.image_size).mean_iou
