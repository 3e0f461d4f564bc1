"""Design study: a densely connected encoder block (paper, section 3.2)."""

import keras
from keras import ops

from keras_t2t.layers.common import inherited
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class DenseBlock(EncoderBlock):
    """An encoder block that keeps its input and appends `growth` channels projected from its result.

    Huang et al., "Densely Connected Convolutional Networks", CVPR 2017; `models/t2t_vit_dense.py` of the reference.

    Args:
        growth: channels that the block adds.
        num_heads and the keyword arguments: see `EncoderBlock`.

    Input:
        (B, N, D).

    Output:
        (B, N, D + growth), or (B, 1, D + growth) with `class_token_only`.
    """

    def __init__(self, growth: int, num_heads: int, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.growth = growth
        self.growth_projection = FastDense(growth, name="growth_projection", **inherited(self))

    def build(self, input_shape):
        super().build(input_shape)
        self.growth_projection.build(input_shape)

    def residual_mlp(self, x, mixed):
        return ops.concatenate([x, self.growth_projection(super().residual_mlp(x, mixed))], axis=-1)

    def compute_output_shape(self, input_shape):
        *tokens, width = super().compute_output_shape(input_shape)
        return (*tokens, width + self.growth)

    def get_config(self):
        return {**super().get_config(), "growth": self.growth}
