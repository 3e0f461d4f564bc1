"""The base class and the operations shared by the layers of an inference graph."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.layers.common import precise_dtype
from keras_t2t.layers.fast_dense import add_bias, exact_gelu

RANDOM_FEATURES, FIRST_KERNEL = "random_features", "split1_kernel"
NEVER_ROUNDED = (RANDOM_FEATURES, FIRST_KERNEL)
"""Ends of the names of the weights that are not stored in 16 bits. The exponential would magnify the rounding errors of random
features. The first kernel subtracts the mean of each window, which can be much larger than what is left of it.
"""


class FoldedLayer(keras.Layer):
    """Base class of layers for inference only. Their weights are computed from those of other layers.

    Args:
        shapes: Shape of each weight by name.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, shapes: Mapping[str, tuple], **kwargs: Any):
        super().__init__(**kwargs)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.folded = {
            name: self.add_weight(
                name=name,
                shape=shape,
                initializer="zeros",
                trainable=False,
                **({"dtype": precise_dtype(self.variable_dtype), "autocast": False} if name.endswith(NEVER_ROUNDED) else {}),
            )
            for name, shape in self.shapes.items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], **kwargs: Any) -> "FoldedLayer":
        """Returns a layer with the given weights.

        Args:
            arrays: Value of each weight by name.
            **kwargs: Arguments of the class, except `shapes`.
        """
        layer = cls(shapes={name: array.shape for name, array in arrays.items()}, **kwargs)
        for name, array in arrays.items():
            layer.folded[name].assign(array)
        return layer

    def dense(self, x: Any, name: str, gelu: bool = False) -> Any:
        """Returns the output of a dense layer.

        Args:
            x: Tensor of shape `(n, D)`.
            name: Prefix of the weights: `{name}_kernel` of shape `(D, units)`, and `{name}_bias`.
            gelu: Whether to apply exact GELU.

        Returns:
            Tensor of shape `(n, units)`.
        """
        x = add_bias(ops.matmul(x, self.folded[f"{name}_kernel"]), self.folded[f"{name}_bias"])
        return exact_gelu(x) if gelu else x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shapes": self.shapes}


def standardize(x: Any, epsilon: float) -> Any:
    """Returns `x` `(n, D)` with zero mean and unit variance over the channels: a LayerNorm without scale and shift."""
    dtype, x = x.dtype, ops.cast(x, precise_dtype(x.dtype))
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return ops.cast(x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + epsilon), dtype)


def attend(queries: Any, keys: Any, values: Any) -> Any:
    """Returns the output of softmax attention.

    Args:
        queries: Tensor of shape `(B, n, d)` or `(B, H, n, d)`, already scaled.
        keys: Tensor of shape `(B, N, d)` or `(B, H, N, d)`.
        values: Tensor of the same shape as `keys`.

    Returns:
        Tensor of the same shape as `queries`.
    """
    if has_fused_attention(queries.dtype):
        heads = queries.ndim == 4
        inputs = (ops.swapaxes(x, 1, 2) if heads else x[:, :, None] for x in (queries, keys, values))  # (B, N, H, d)
        x = ops.dot_product_attention(*inputs, scale=1.0)
        return ops.swapaxes(x, 1, 2) if heads else x[:, :, 0]
    scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    weights = ops.softmax(ops.cast(scores, precise_dtype(scores.dtype)), axis=-1)
    return ops.matmul(ops.cast(weights, values.dtype), values)


def has_fused_attention(dtype: Any) -> bool:
    """Returns whether `keras.ops.dot_product_attention` runs as one kernel: with JAX, on a GPU, in 16 bits.

    Layers that are trained do not use it, because its gradient does not support odd numbers of tokens.
    """
    if keras.backend.backend() != "jax" or precise_dtype(dtype) == keras.backend.standardize_dtype(dtype):
        return False
    import jax

    return jax.default_backend() == "gpu" and hasattr(ops, "dot_product_attention")
