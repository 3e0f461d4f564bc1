"""Design study: an encoder block of ghost operations (paper, section 3.2)."""

import keras
from keras import ops

from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import inherited, where
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense


class GhostLayer(keras.Layer):
    """A layer with cheap operations: scalings of single channels, which are depthwise 1x1 convolutions without bias.

    Han et al., "GhostNet", CVPR 2020.
    """

    def add_channel_scale(self, name: str, width: int):
        """Returns a trained scale (width,), initialized as PyTorch initializes a depthwise 1x1 convolution."""
        initializer = keras.initializers.RandomUniform(-1.0, 1.0)
        return self.add_weight(name=name, shape=(width,), initializer=initializer)


@keras.saving.register_keras_serializable("keras_t2t")
class GhostDense(GhostLayer):
    """A dense layer that computes half of its channels and scales them to get the other half.

    Args:
        units: width of the result, an even number.
        use_bias: whether the computed half has a bias.

    Input:
        (..., D).

    Output:
        (..., units).

    Raises:
        ValueError: if `units` is odd.
    """

    def __init__(self, units: int, use_bias: bool = False, **kwargs):
        super().__init__(**kwargs)
        if units % 2:
            raise ValueError(f"{where(self)}: expected an even number of units; received: units={units}")
        self.units = units
        self.use_bias = use_bias
        self.primary = FastDense(units // 2, name="primary", use_bias=use_bias, **inherited(self))

    def build(self, input_shape):
        self.primary.build(input_shape)
        self.scale = self.add_channel_scale("scale", self.units // 2)

    def call(self, x):
        x = self.primary(x)  # (..., units / 2)
        return ops.concatenate([x, x * self.scale], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


@keras.saving.register_keras_serializable("keras_t2t")
class GhostAttention(MultiHeadSelfAttention):
    """Self-attention whose queries, keys and values come from `GhostDense` layers.

    `models/t2t_vit_ghost.py` of the reference. The arguments, the input and the output are those of `MultiHeadSelfAttention`.
    """

    def build_heads(self, input_shape):
        width = input_shape[-1]
        self.query, self.key, self.value = (
            GhostDense(width, self.qkv_bias, name=name, **inherited(self)) for name in ("query", "key", "value")
        )
        for part in (self.query, self.key, self.value):
            part.build(input_shape)

    def project_heads(self, query_tokens, x):
        projected = self.query(query_tokens), self.key(x), self.value(x)  # (B, n or N, D)
        return tuple(self.split_heads(part, 1)[0] for part in projected)


@keras.saving.register_keras_serializable("keras_t2t")
class GhostMLP(GhostLayer):
    """An MLP that computes a third of its hidden channels and scales them to get the others.

    `models/t2t_vit_ghost.py` of the reference.

    Args:
        hidden_dim: hidden width, a multiple of 3.
        drop_rate: dropout after the hidden layer and the result, in training.

    Input and output:
        (..., D), the same shape.

    Raises:
        ValueError: if 3 does not divide `hidden_dim`.
    """

    def __init__(self, hidden_dim: int, drop_rate: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if hidden_dim % 3:
            raise ValueError(f"{where(self)}: expected a hidden_dim divisible by 3; received: hidden_dim={hidden_dim}")
        self.hidden_dim = hidden_dim
        self.drop_rate = drop_rate

    def build(self, input_shape):
        third = self.hidden_dim // 3
        self.fc1 = FastDense(third, name="fc1", activation="gelu", **inherited(self))
        self.fc1.build(input_shape)
        self.scale1 = self.add_channel_scale("scale1", third)
        self.scale2 = self.add_channel_scale("scale2", third)
        self.fc2 = FastDense(input_shape[-1], name="fc2", **inherited(self))
        self.fc2.build((*input_shape[:-1], self.hidden_dim))
        self.dropout = keras.layers.Dropout(self.drop_rate, **inherited(self))

    def call(self, x):
        x = self.fc1(x)  # (..., hidden_dim / 3)
        ghosts = [ops.gelu(x * scale, approximate=False) for scale in (self.scale1, self.scale2)]
        x = self.dropout(ops.concatenate([x, *ghosts], axis=-1))  # (..., hidden_dim)
        return self.dropout(self.fc2(x))  # (..., D)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "hidden_dim": self.hidden_dim, "drop_rate": self.drop_rate}


@keras.saving.register_keras_serializable("keras_t2t")
class GhostBlock(EncoderBlock):
    """An `EncoderBlock` with `GhostAttention` and `GhostMLP`; the same arguments, input and output."""

    attention_class = GhostAttention
    mlp_class = GhostMLP
