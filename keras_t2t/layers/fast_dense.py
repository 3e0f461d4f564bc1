"""The dense layer used throughout this package."""

import math
from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import layer_path


@keras.saving.register_keras_serializable("keras_t2t")
class FastDense(keras.layers.Dense):
    """A `keras.layers.Dense` whose operations TensorFlow can fuse, initialized like the reference implementation.

    By default, the kernel is initialized from a truncated normal distribution with a standard deviation of 0.02. With oneDNN,
    TensorFlow fuses a matrix product, the addition of a bias and an activation (including exact GELU) into one operation, but
    only if they are written as they are here. `benchmarks/layers.py` compares the speed. The layer has the same weights as
    `keras.layers.Dense`.

    Args:
        units: Width of the output.
        **kwargs: Other arguments of `keras.layers.Dense`.

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

    def call(self, x: Any, training: bool | None = None) -> Any:
        _, *between, width = ops.shape(x)
        x = ops.matmul(ops.reshape(x, (-1, width)), self.kernel)
        if self.use_bias:
            x = add_bias(x, self.bias)
        if self.activation is not None:
            x = gelu(x, training) if self.activation is keras.activations.gelu else self.activation(x)
        return ops.reshape(x, (-1, *between, self.units))  # -1 avoids computing an unknown batch size in the graph

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if config.get("quantization_config") is None:
            config.pop("quantization_config", None)  # older versions of Keras do not know it
        return config

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises `ValueError`. A quantized layer could not be loaded from a file as part of a larger layer."""
        raise ValueError(
            f"{layer_path(self)}: the layers of keras_t2t cannot be quantized in place. Quantize the exported file instead: "
            'keras_t2t.export(model, "model.tflite", quantize="int8")'
        )


@keras.saving.register_keras_serializable("keras_t2t")
def exact_gelu(x: Any) -> Any:
    """Returns the exact GELU, written with `erf`: the form that every converter and runtime recognizes."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def gelu(x: Any, training: bool | None) -> Any:
    """Returns the exact GELU. In training on TensorFlow, only `x` is kept for the backward pass, instead of several tensors."""
    if not training or keras.backend.backend() != "tensorflow":
        return exact_gelu(x)
    import tensorflow as tf

    @tf.custom_gradient
    def function(x):
        def gradient(upstream):
            # The derivative of x * P(x) is P(x) + x * p(x), where P and p are the normal distribution and its density.
            density = ops.exp(-0.5 * ops.square(x)) / math.sqrt(2 * math.pi)
            return upstream * (0.5 + 0.5 * ops.erf(x * math.sqrt(0.5)) + x * density)

        return exact_gelu(x), gradient

    return function(x)


def add_bias(x: Any, bias: Any) -> Any:
    """Adds a bias `(units,)` to a matrix `x` of shape `(n, units)`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias
