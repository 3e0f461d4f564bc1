"""Facts of ImageNet-1k: the normalisation of its images and the names of its classes."""

import functools
import importlib.resources

import keras
import numpy as np

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def preprocess_input(x, data_format=None):
    """Normalises RGB images for a model built with `include_preprocessing=False`, as in `keras.applications`.

    Args:
        x: array or tensor, (H, W, 3) or (B, H, W, 3), values in [0, 255]. A floating point array is overwritten.
        data_format: `"channels_last"`, `"channels_first"` or None, the setting of Keras.

    Returns:
        The images scaled to [0, 1], less `MEAN`, divided by `STD`; the same shape, floating point.
    """
    return keras.applications.imagenet_utils.preprocess_input(x, data_format=data_format, mode="torch")


def decode_predictions(preds, top=5):
    """Returns the names and scores of the likeliest ImageNet classes, as in `keras.applications`.

    Args:
        preds: array or tensor (B, 1000) of scores.
        top: how many classes to return for each image.

    Returns:
        For each image a list of `top` tuples (WordNet id, name, score), the highest score first.

    Raises:
        ValueError: if `preds` is not of shape (B, 1000).
    """
    if len(preds.shape) != 2 or preds.shape[1] != 1000:
        raise ValueError(f"Expected a batch of predictions of shape (samples, 1000); received: {tuple(preds.shape)}")
    names = class_names()
    preds = keras.ops.convert_to_numpy(preds)
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(*names[i], scores[i]) for i in indices] for indices, scores in zip(best, preds, strict=True)]


@functools.cache
def class_names() -> list[tuple[str, str]]:
    """Returns the (WordNet id, name) of the 1,000 classes in the order of the models' outputs."""
    text = importlib.resources.files("keras_t2t").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return [tuple(line.split("\t")) for line in text.splitlines()]
