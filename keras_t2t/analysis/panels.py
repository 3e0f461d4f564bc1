"""What there is to see of one image, as maps of pixels under titles: what `draw_overlays` draws."""

import keras
import numpy as np

from keras_t2t.analysis.attention import attention_maps, rollout
from keras_t2t.analysis.evidence import class_evidence
from keras_t2t.analysis.geometry import to_pixels, token_centers
from keras_t2t.models import config_of


def attention_panels(model: keras.Model, images, label="the class", heads: int = 8) -> dict[str, np.ndarray]:
    """Returns what a classifier looks at.

    Args:
        model: a classifier of this package.
        images: one image (1, H, W, C), in the range that the model takes.
        label: what to call the likeliest class.
        heads: how many heads of the last block at most.

    Returns:
        Maps (H, W) by title: the evidence for the likeliest class, the rollout of the class token, the attention of the token
        in the center in each stage, and that of the class token in the heads of the last block.

    Raises:
        ValueError: as `attention_maps` and `class_evidence`, and for more than one image.
    """
    if len(images) != 1:
        raise ValueError(f"Expected one image, (1, H, W, C); received: {np.shape(images)}")
    splits, size = config_of(model).soft_splits, np.shape(images)[1:3]

    def pixels(values, count=None):
        centers = token_centers(splits[:count], size)
        grid = tuple(map(len, centers))
        return to_pixels(np.reshape(values, (*np.shape(values)[:-1], *grid)), centers, size)

    maps = attention_maps(model, images)
    stages = [name for name in maps if name.startswith("stage")]
    blocks = [name for name in maps if name not in stages]
    evidence = class_evidence(model, images)[0]
    panels = {
        f"evidence for {label}": pixels(evidence.ravel()),
        "rollout of the class token": pixels(rollout(maps[name] for name in blocks)[0, 0, 1:]),
    }
    for i, name in enumerate(stages, 1):
        panels[f"{name}, from the center"] = pixels(maps[name][0, 0, 0], i)
    for head, values in enumerate(pixels(maps[blocks[-1]][0, :heads, 0, 1:])):
        panels[f"{blocks[-1]}, head {head}"] = values
    return panels
