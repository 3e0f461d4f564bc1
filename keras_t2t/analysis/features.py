"""Feature maps at every scale, as arrays."""

from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np

from keras_t2t.analysis.tracing import batches, to_numpy
from keras_t2t.models import feature_pyramid


def feature_maps(
    model: keras.Model, images: np.ndarray, blocks: Sequence[str] = ("block0",), batch_size: int = 8
) -> dict[str, np.ndarray]:
    """Returns the feature maps of `feature_pyramid(model, blocks)` as arrays.

    Args:
        model: A model built by `keras_t2t`.
        images: Images of any size, of shape `(B, H, W, C)`, in the value range the model expects.
        blocks: Names of blocks whose outputs to include.
        batch_size: Number of images per forward pass.

    Returns:
        A dictionary that maps names to arrays `(B, h, w, channels)` in float32 or higher precision.

    Raises:
        ValueError: If `model` was not built by `keras_t2t`, does not have the requested blocks, or does not accept the images.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> maps = keras_t2t.analysis.feature_maps(model, np.zeros((2, 32, 32, 3)))
    >>> maps["P1"].shape
    (2, 16, 16, 64)
    """
    pyramid, maps = feature_pyramid(model, blocks), defaultdict(list)
    for batch in batches(pyramid, images, batch_size):
        for name, values in pyramid(batch, training=False).items():
            maps[name].append(to_numpy(values))
    return {name: np.concatenate(values) for name, values in maps.items()}
