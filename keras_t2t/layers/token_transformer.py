"""The token transformer: full attention between two soft splits."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.attention import attention_weights
from keras_t2t.layers.common import sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.token_attention import TokenAttention


@keras.saving.register_keras_serializable("keras_t2t")
class TokenTransformer(TokenAttention):
    """Models the tokens between two soft splits with a single-head transformer layer.

    See section 3.1, "Re-structurization", of the paper. Corresponds to `models/token_transformer.py` in the reference
    implementation. The scores are scaled by `K**-0.5`, where K is the width of the *input* tokens. The residual connection
    around the attention starts from the values.

    Args:
        token_dim: Width D of the head and of the output tokens.
        drop_rate: Dropout rate after the attention projection and after the MLP. Used in training only. The published models
            use a rate of 0.

    Input shape:
        `(B, N, K)`, where K is the window size times the channels of the preceding soft split.

    Output shape:
        `(B, N, D)`. Time and memory grow with `N * N`.

    Raises:
        ValueError: If `drop_rate` is not in [0, 1), or if the input is not a sequence of tokens.

    Example:

    >>> x = keras.Input((3136, 147))
    >>> keras_t2t.layers.TokenTransformer(token_dim=64)(x).shape
    (None, 3136, 64)
    """

    def build_heads(self, input_shape: tuple) -> None:
        self.scale = input_shape[-1] ** -0.5
        self.qkv = FastDense(3 * self.token_dim, name="qkv", use_bias=False, **sublayer_kwargs(self))
        self.qkv.build(input_shape)

    def project_heads(self, x: Any) -> tuple:
        return ops.split(self.qkv(x), 3, axis=-1)

    def compute_weights(self, queries: Any, keys: Any) -> Any:
        return attention_weights(queries, keys, self.scale)

    def apply_attention(self, queries: Any, keys: Any, values: Any) -> Any:
        return ops.matmul(self.compute_weights(queries, keys), values)
