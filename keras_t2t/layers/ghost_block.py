"""Design study: an encoder block of ghost operations (paper, section 3.2)."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import layer_path, sublayer_kwargs
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense, gelu


def add_channel_scale(layer: keras.Layer, name: str, width: int) -> Any:
    """Adds the scale `(width,)` of a cheap operation (Han et al., "GhostNet", CVPR 2020), a depthwise 1x1 convolution.

    It is initialized as in PyTorch.
    """
    return layer.add_weight(name=name, shape=(width,), initializer=keras.initializers.RandomUniform(-1.0, 1.0))


@keras.saving.register_keras_serializable("keras_t2t")
class GhostDense(keras.Layer):
    """A dense layer that computes half of its channels and scales them to get the other half.

    Args:
        units: Width of the output. Must be even.
        use_bias: Whether the computed half of the channels has a bias.

    Input shape:
        `(..., D)`.

    Output shape:
        `(..., units)`.

    Raises:
        ValueError: If `units` is odd.
    """

    def __init__(self, units: int, use_bias: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if units % 2:
            raise ValueError(f"{layer_path(self)}: expected an even number of units; received: {units=}")
        self.units = units
        self.use_bias = use_bias
        self.primary = FastDense(units // 2, name="primary", use_bias=use_bias, **sublayer_kwargs(self))

    def build(self, input_shape: tuple) -> None:
        self.primary.build(input_shape)
        self.scale = add_channel_scale(self, "scale", self.units // 2)

    def call(self, x: Any) -> Any:
        x = self.primary(x)  # (..., units / 2)
        return ops.concatenate([x, x * self.scale], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


@keras.saving.register_keras_serializable("keras_t2t")
class GhostAttention(MultiHeadSelfAttention):
    """Self-attention with queries, keys and values from `GhostDense` layers.

    Corresponds to `models/t2t_vit_ghost.py` in the reference implementation. The arguments, input and output are the same as in
    `MultiHeadSelfAttention`.
    """

    def build_heads(self, input_shape: tuple) -> None:
        width = input_shape[-1]
        self.query, self.key, self.value = (
            GhostDense(width, self.qkv_bias, name=name, **sublayer_kwargs(self)) for name in ("query", "key", "value")
        )
        for projection in (self.query, self.key, self.value):
            projection.build(input_shape)

    def project_heads(self, query_tokens: Any, x: Any) -> tuple:
        projected = self.query(query_tokens), self.key(x), self.value(x)  # (B, n or N, D)
        return tuple(self.split_heads(tokens, 1)[0] for tokens in projected)


@keras.saving.register_keras_serializable("keras_t2t")
class GhostMLP(keras.Layer):
    """An MLP that computes a third of its hidden channels and scales them to get the other two thirds.

    Corresponds to `models/t2t_vit_ghost.py` in the reference implementation. GELU is applied both before and after scaling.

    Args:
        hidden_dim: Hidden width. Must be divisible by 3.
        drop_rate: Dropout rate after the hidden layer and after the output. Used in training only.

    Input shape:
        `(..., D)`.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: If `hidden_dim` is not divisible by 3.
    """

    def __init__(self, hidden_dim: int, drop_rate: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        if hidden_dim % 3:
            raise ValueError(f"{layer_path(self)}: expected a hidden_dim divisible by 3; received: {hidden_dim=}")
        self.hidden_dim = hidden_dim
        self.drop_rate = drop_rate

    def build(self, input_shape: tuple) -> None:
        third = self.hidden_dim // 3
        self.fc1 = FastDense(third, name="fc1", activation="gelu", **sublayer_kwargs(self))
        self.fc1.build(input_shape)
        self.scale1 = add_channel_scale(self, "scale1", third)
        self.scale2 = add_channel_scale(self, "scale2", third)
        self.fc2 = FastDense(input_shape[-1], name="fc2", **sublayer_kwargs(self))
        self.fc2.build((*input_shape[:-1], self.hidden_dim))
        self.dropout = keras.layers.Dropout(self.drop_rate, **sublayer_kwargs(self))

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.fc1(x)  # (..., hidden_dim / 3)
        ghosts = [gelu(x * scale, training) for scale in (self.scale1, self.scale2)]
        x = self.dropout(ops.concatenate([x, *ghosts], axis=-1))  # (..., hidden_dim)
        return self.dropout(self.fc2(x))  # (..., D)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_dim": self.hidden_dim, "drop_rate": self.drop_rate}


@keras.saving.register_keras_serializable("keras_t2t")
class GhostBlock(EncoderBlock):
    """An `EncoderBlock` with `GhostAttention` and `GhostMLP`. The arguments, input and output are the same.

    Example:

    >>> x = keras.Input((197, 384))
    >>> keras_t2t.layers.GhostBlock(num_heads=6, mlp_ratio=3.0)(x).shape
    (None, 197, 384)
    """

    attention_class = GhostAttention
    mlp_class = GhostMLP
