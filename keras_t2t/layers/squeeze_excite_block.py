"""Design study: an encoder block with channel attention (paper, section 3.2)."""

from typing import Any

import keras
from keras import ops

from keras_t2t.configs import squeezed_width
from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import sublayer_kwargs
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class SqueezeExciteAttention(MultiHeadSelfAttention):
    """Self-attention followed by a gate that scales each channel. The gate is computed from the mean over the tokens.

    See Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. Corresponds to `models/t2t_vit_se.py` in the reference
    implementation. The arguments, input and output are the same as in `MultiHeadSelfAttention`. The mean needs every token, so
    `class_token_only` does not save any work in this layer.
    """

    def build_heads(self, input_shape: tuple) -> None:
        super().build_heads(input_shape)
        width = input_shape[-1]
        squeezed = squeezed_width(width)
        self.squeeze = FastDense(squeezed, name="squeeze", use_bias=False, activation="relu", **sublayer_kwargs(self))
        self.squeeze.build((input_shape[0], width))
        self.excite = FastDense(width, name="excite", use_bias=False, activation="sigmoid", **sublayer_kwargs(self))
        self.excite.build((input_shape[0], squeezed))

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.apply_attention(*self.compute_weights(x, x))  # (B, N, D)
        return self.projection_dropout(x[:, :1] if self.class_token_only else x)

    def apply_attention(self, weights: Any, values: Any) -> Any:
        x = super().apply_attention(weights, values)  # (B, N, D)
        gate = self.excite(self.squeeze(ops.mean(x, axis=1)))  # (B, D)
        return x * gate[:, None]


@keras.saving.register_keras_serializable("keras_t2t")
class SqueezeExciteBlock(EncoderBlock):
    """An `EncoderBlock` with `SqueezeExciteAttention`. The arguments, input and output are the same.

    Example:

    >>> x = keras.Input((197, 384))
    >>> keras_t2t.layers.SqueezeExciteBlock(num_heads=6, mlp_ratio=3.0)(x).shape
    (None, 197, 384)
    """

    attention_class = SqueezeExciteAttention
