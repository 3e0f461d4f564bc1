"""The two-layer perceptron of a transformer block."""

from typing import Any

import keras

from keras_t2t.layers.common import sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class MLP(keras.Layer):
    """A dense layer with exact GELU, followed by a dense layer that restores the width of the input.

    Each token is processed separately. Corresponds to `Mlp` in `models/transformer_block.py` of the reference implementation.

    Args:
        hidden_dim: Width between the two dense layers.
        drop_rate: Dropout rate after each dense layer. Used in training only.

    Input shape:
        `(..., D)`.

    Output shape:
        Same as the input shape.

    Example:

    >>> x = keras.Input((197, 384))
    >>> keras_t2t.layers.MLP(hidden_dim=1152, drop_rate=0.1)(x).shape
    (None, 197, 384)
    """

    def __init__(self, hidden_dim: int, drop_rate: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.drop_rate = drop_rate

    def build(self, input_shape: tuple) -> None:
        width = input_shape[-1]
        self.fc1 = FastDense(self.hidden_dim, name="fc1", activation="gelu", **sublayer_kwargs(self))
        self.fc1.build(input_shape)
        self.fc2 = FastDense(width, name="fc2", **sublayer_kwargs(self))
        self.fc2.build((*input_shape[:-1], self.hidden_dim))
        self.dropout = keras.layers.Dropout(self.drop_rate, **sublayer_kwargs(self))

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.dropout(self.fc1(x))  # (..., hidden_dim)
        return self.dropout(self.fc2(x))  # (..., D)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_dim": self.hidden_dim, "drop_rate": self.drop_rate}
