"""The layer normalization used throughout this package."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import precise_dtype


def center(x: Any, epsilon: float) -> tuple:
    """Returns `x` minus its mean over the last axis, and its inverse std `(..., 1)`, both in at least float32."""
    x = ops.cast(x, precise_dtype(x.dtype))
    centered = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
    return centered, ops.rsqrt(variance + epsilon)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Returns the layer normalization of `x` over its last axis, in at least float32.

    Args:
        x: Tensor `(..., D)`.
        gamma: Scale `(D,)`, in at least float32.
        beta: Shift `(D,)`, in at least float32.
        epsilon: Value added to the variance.
    """
    centered, inverse_std = center(x, epsilon)
    return centered * (inverse_std * gamma) + beta


def layer_norm_with_lean_gradient(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Returns the same as `layer_norm`, for TensorFlow, and keeps only `x` for the backward pass."""
    import tensorflow as tf

    @tf.custom_gradient
    def function(x, gamma, beta):
        def gradient(upstream):
            centered, inverse_std = center(x, epsilon)
            standardized, scaled = centered * inverse_std, upstream * gamma
            along = ops.mean(scaled * standardized, axis=-1, keepdims=True)
            x_gradient = inverse_std * (scaled - ops.mean(scaled, axis=-1, keepdims=True) - standardized * along)
            tokens = tuple(range(len(x.shape) - 1))
            return ops.cast(x_gradient, x.dtype), ops.sum(upstream * standardized, tokens), ops.sum(upstream, tokens)

        return layer_norm(x, gamma, beta, epsilon), gradient

    return function(x, gamma, beta)


@keras.saving.register_keras_serializable("keras_t2t")
class FastLayerNorm(keras.layers.LayerNormalization):
    """A `keras.layers.LayerNormalization` over the last axis, with a gradient that takes less memory.

    Keras broadcasts the scale and shift to the shape of the tokens before applying them. The order of operations here makes
    fewer passes over the tokens. `benchmarks/layers.py` compares the speed. The layer has the same weights as
    `keras.layers.LayerNormalization`. Everything is computed in at least float32, and the result is cast to the compute dtype.
    In training on TensorFlow, only the input is kept for the backward pass, instead of several tensors of its size.

    Args:
        epsilon: Value added to the variance.
        name: Name of the layer.
        dtype: Dtype or dtype policy of the layer.
        trainable: Whether the weights are trained.

    Input shape:
        `(..., D)`.

    Output shape:
        Same as the input shape.

    Example:

    >>> y = keras_t2t.layers.FastLayerNorm()(np.array([[2.0, 2.0, 8.0, 8.0]]))
    >>> keras.ops.convert_to_numpy(y).round().tolist()
    [[-1.0, -1.0, 1.0, 1.0]]
    """

    def __init__(self, epsilon: float = 1e-5, name: str | None = None, dtype: Any = None, trainable: bool = True):
        super().__init__(epsilon=epsilon, name=name, dtype=dtype, trainable=trainable)

    def call(self, x: Any, training: bool | None = None) -> Any:
        gamma, beta = (ops.cast(weight, precise_dtype(x.dtype)) for weight in (self.gamma, self.beta))
        function = layer_norm
        if training and keras.backend.backend() == "tensorflow":  # exporters recognize the plain operations only
            function = layer_norm_with_lean_gradient
        return ops.cast(function(x, gamma, beta, self.epsilon), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**keras.Layer.get_config(self), "epsilon": self.epsilon}
