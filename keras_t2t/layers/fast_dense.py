"""The dense layer of this package."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_t2t")
class FastDense(keras.layers.Dense):
    """`keras.layers.Dense` with the initialization of the reference, and faster on CPUs.

    The kernel is initialized from a truncated normal with std 0.02. With oneDNN, TensorFlow fuses a product of two matrices,
    the addition of a bias and an activation (including exact GELU) into one kernel, but only if they have the form used in
    `call`. `benchmarks/layers.py` measures the gain. The weights are those of `keras.layers.Dense`.

    Args:
        units: Width of the output.
        **kwargs: Further arguments of `keras.layers.Dense`.

    Input shape:
        `(..., D)`.

    Output shape:
        `(..., units)`.

    Example:

    >>> x = keras.Input((197, 384))
    >>> keras_t2t.layers.FastDense(1152, activation="gelu")(x).shape
    (None, 197, 1152)
    """

    def __init__(self, units: int, **kwargs: Any):
        kwargs.setdefault("kernel_initializer", keras.initializers.TruncatedNormal(stddev=0.02))
        super().__init__(units, **kwargs)

    def call(self, x: Any) -> Any:
        _, *between, width = ops.shape(x)
        x = ops.matmul(ops.reshape(x, (-1, width)), self.kernel)
        if self.use_bias:
            x = add_bias(x, self.bias)
        if self.activation is not None:
            x = self.activation(x)
        return ops.reshape(x, (-1, *between, self.units))  # -1 keeps an unknown batch size out of the graph


def add_bias(x: Any, bias: Any) -> Any:
    """Returns the sum of `x` `(n, units)` and `bias` `(units,)`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias
