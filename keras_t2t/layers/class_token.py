"""The class token."""

import math
from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import layer_path


@keras.saving.register_keras_serializable("keras_t2t")
class ClassToken(keras.Layer):
    """Prepends a trainable class token to the tokens of every image.

    Input shape:
        `(B, h, w, D)` for a grid of tokens, or `(B, N, D)` for a sequence.

    Output shape:
        `(B, 1 + N, D)`. The class token comes first, followed by the grid row by row.

    Raises:
        ValueError: If the input has fewer than three axes.

    Example:

    >>> x = keras.Input((14, 14, 384))
    >>> keras_t2t.layers.ClassToken()(x).shape
    (None, 197, 384)
    """

    def build(self, input_shape: tuple) -> None:
        if len(input_shape) < 3:
            raise ValueError(
                f"{layer_path(self)}: expected tokens (batch, ..., width); received: input_shape={tuple(input_shape)}"
            )
        self.token = self.add_weight(
            name="token",
            shape=(1, 1, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, x: Any) -> Any:
        shape = ops.shape(x)
        tokens = ops.reshape(x, (shape[0], math.prod(shape[1:-1]), shape[-1]))
        token = ops.broadcast_to(ops.cast(self.token, x.dtype), (shape[0], 1, shape[-1]))
        return ops.concatenate([token, tokens], axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, *grid, width = input_shape
        return (batch, None if None in grid else 1 + math.prod(grid), width)

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # without this method, Keras would refuse a `dtype` that is a `keras.DTypePolicy`
