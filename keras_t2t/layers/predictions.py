"""The end of a classifier: its activation and the names of its classes."""

from collections.abc import Sequence

import keras


@keras.saving.register_keras_serializable("keras_t2t")
class Predictions(keras.layers.Activation):
    """Turns logits into scores, and carries the names of the classes, so that a saved model knows them.

    Args:
        activation: name or function of the activation; None for logits.
        labels: names of the classes in the order of the logits, or None.

    Call arguments:
        inputs: (..., classes).

    Returns:
        The same shape.

    Raises:
        ValueError: if there are not as many logits as labels.
    """

    def __init__(self, activation="softmax", labels: Sequence[str] | None = None, **kwargs):
        super().__init__(activation, **kwargs)
        self.labels = None if labels is None else tuple(labels)

    def build(self, input_shape):
        if self.labels is not None and input_shape[-1] != len(self.labels):
            raise ValueError(f"Expected a label for each of {input_shape[-1]} classes; received {len(self.labels)}")
        super().build(input_shape)

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}
