"""Visual explanations of a prediction, as titled pixel maps for `draw_overlays`."""

import keras
import numpy as np

from keras_t2t.analysis.attention import attention_maps, rollout
from keras_t2t.analysis.evidence import class_evidence
from keras_t2t.analysis.geometry import to_pixels, token_centers
from keras_t2t.analysis.tracing import size_of_tokenized_images, stage_names
from keras_t2t.models.graph import tokens_to_token_of


def attention_panels(model: keras.Model, images: np.ndarray, label: str = "top class", heads: int = 8) -> dict[str, np.ndarray]:
    """Returns maps that show where a classifier looks.

    Args:
        model: A classifier built by `keras_t2t`.
        images: One image `(1, H, W, C)`, in the value range the model expects.
        label: Name of the top class, for the titles.
        heads: Maximum number of heads of the last block to include.

    Returns:
        A dictionary of maps `(H, W)`, keyed by title: the evidence for the top class, the attention rollout of the class token,
        the attention of the center token in each stage, and that of the class token in each head of the last block.

    Raises:
        ValueError: If there is more than one image, if the model is not a classifier with a head on its class token, or if the
            image does not match the model's input shape.
    """
    if len(images) != 1:
        raise ValueError(f"Expected one image of shape (1, H, W, C); received: images of shape {np.shape(images)}")
    module, size = tokens_to_token_of(model), np.shape(images)[1:3]
    tokenized = size_of_tokenized_images(model, images)

    def pixels(values, num_splits=None):
        centers = token_centers(module.soft_splits[:num_splits], tokenized)
        grid = tuple(map(len, centers))
        rows, columns = ((axis + 0.5) * new / old - 0.5 for axis, old, new in zip(centers, tokenized, size, strict=True))
        return to_pixels(np.reshape(values, (*np.shape(values)[:-1], *grid)), (rows, columns), size)

    maps = attention_maps(model, images)
    stages = stage_names(module)
    blocks = [name for name in maps if name not in stages]
    evidence = class_evidence(model, images)[0]
    panels = {
        f"evidence for {label}": pixels(evidence.ravel()),
        "attention rollout, class token": pixels(rollout(maps[name] for name in blocks)[0, 0, 1:]),
    }
    for i, name in enumerate(stages, 1):
        panels[f"{name}, center token"] = pixels(maps[name][0, 0, 0], i)
    for head, values in enumerate(pixels(maps[blocks[-1]][0, :heads, 0, 1:])):
        panels[f"{blocks[-1]}, head {head}"] = values
    return panels
