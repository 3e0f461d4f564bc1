"""The two functions that accompany every model in `keras.applications`."""

from typing import Any

import keras
import numpy as np

from keras_t2t.assets import imagenet_classes


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Returns `x` unchanged, because the models normalize their images themselves.

    As in `keras.applications.convnext`, this function exists so that code written for other models keeps working. For a
    model built with `include_preprocessing=False`, use `keras_t2t.normalize_images` instead.

    Args:
        x: Array or tensor of images with values in [0, 255], of any dtype.
        data_format: Not used.

    Returns:
        The input `x`.
    """
    return x


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Returns the names and scores of the top ImageNet classes, as in `keras.applications`.

    Args:
        preds: Array or tensor of shape `(batch, 1000)`.
        top: Number of classes to return for each image.

    Returns:
        A list for each image, with `top` tuples `(WordNet ID, name, score)` sorted by descending score.

    Raises:
        ValueError: If `preds` does not have the shape `(batch, 1000)`.
    """
    if len(preds.shape) != 2 or preds.shape[1] != 1000:
        raise ValueError(
            f"Expected a batch of predictions of shape (samples, 1000); received: {tuple(preds.shape)}. "
            "For other classes, use `keras_t2t.predict_images`"
        )
    classes = imagenet_classes()
    preds = keras.ops.convert_to_numpy(preds)
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(*classes[i], scores[i]) for i in indices] for indices, scores in zip(best, preds, strict=True)]
