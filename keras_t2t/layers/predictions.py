"""The last layer of a classifier, which has its activation and the names of its classes."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_t2t")
class Predictions(keras.layers.Activation):
    """Turns logits into scores, and stores the class names so that they are saved with the model.

    Args:
        activation: Name of an activation, or a function. With `None`, the layer returns the logits.
        labels: Class names in the order of the logits, or `None`.

    Input shape:
        `(..., classes)`.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: If the number of labels differs from the number of logits.

    Example:

    >>> layer = keras_t2t.layers.Predictions("softmax", labels=["cat", "dog"])
    >>> keras.ops.convert_to_numpy(layer(np.zeros((1, 2)))).tolist()
    [[0.5, 0.5]]
    >>> layer.labels
    ('cat', 'dog')
    """

    def __init__(self, activation: Any = "softmax", labels: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(activation, **kwargs)
        self.labels = None if labels is None else tuple(labels)

    def build(self, input_shape: tuple) -> None:
        if self.labels is not None and input_shape[-1] != len(self.labels):
            raise ValueError(f"Expected one label for each of {input_shape[-1]} classes; received: {len(self.labels)} labels")
        super().build(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "labels": self.labels}
