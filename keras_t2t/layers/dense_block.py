"""Design study: a densely connected encoder block (paper, section 3.2)."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import sublayer_kwargs
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class DenseBlock(EncoderBlock):
    """An encoder block that keeps its input and appends `growth` channels, which are projected from the block's result.

    See Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. Corresponds to `models/t2t_vit_dense.py` in the
    reference implementation.

    Args:
        growth: Number of channels that the block adds.
        num_heads: Number of attention heads. Must divide D.
        **kwargs: Other arguments of `EncoderBlock`.

    Input shape:
        `(B, N, D)`.

    Output shape:
        `(B, N, D + growth)`, or `(B, 1, D + growth)` with `class_token_only`.

    Example:

    >>> x = keras.Input((197, 128))
    >>> keras_t2t.layers.DenseBlock(growth=64, num_heads=8, mlp_ratio=2.0)(x).shape
    (None, 197, 192)
    """

    def __init__(self, growth: int, num_heads: int, **kwargs: Any):
        super().__init__(num_heads, **kwargs)
        self.growth = growth
        self.growth_projection = FastDense(growth, name="growth_projection", **sublayer_kwargs(self))

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.growth_projection.build(input_shape)

    def residual_mlp(self, x: Any, attention_output: Any, training: bool | None = None) -> Any:
        result = super().residual_mlp(x, attention_output, training)
        return ops.concatenate([x, self.growth_projection(result)], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        *tokens, width = super().compute_output_shape(input_shape)
        return (*tokens, width + self.growth)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "growth": self.growth}
