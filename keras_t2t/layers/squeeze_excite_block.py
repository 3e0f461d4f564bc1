"""Design study: an encoder block with channel attention (paper, section 3.2)."""

import keras
from keras import ops

from keras_t2t.configs import SQUEEZE_REDUCTION
from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import inherited
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class SqueezeExciteAttention(MultiHeadSelfAttention):
    """Self-attention whose channels are scaled by a gate computed from their mean over the tokens.

    Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018; `models/t2t_vit_se.py` of the reference. The arguments, the input
    and the output are those of `MultiHeadSelfAttention`. The mean needs every token, so that `class_token_only` saves no work.
    """

    def build_heads(self, input_shape):
        super().build_heads(input_shape)
        width = input_shape[-1]
        squeezed = max(width // SQUEEZE_REDUCTION, 1)
        self.squeeze = FastDense(squeezed, name="squeeze", use_bias=False, activation="relu", **inherited(self))
        self.squeeze.build((input_shape[0], width))
        self.excite = FastDense(width, name="excite", use_bias=False, activation="sigmoid", **inherited(self))
        self.excite.build((input_shape[0], squeezed))

    def call(self, x):
        x = self.apply_attention(*self.compute_weights(x, x))  # (B, N, D)
        return self.projection_dropout(x[:, :1] if self.class_token_only else x)

    def apply_attention(self, weights, values):
        x = super().apply_attention(weights, values)  # (B, N, D)
        gate = self.excite(self.squeeze(ops.mean(x, axis=1)))  # (B, D)
        return x * gate[:, None]


@keras.saving.register_keras_serializable("keras_t2t")
class SqueezeExciteBlock(EncoderBlock):
    """An `EncoderBlock` with `SqueezeExciteAttention`; the same arguments, input and output."""

    attention_class = SqueezeExciteAttention
