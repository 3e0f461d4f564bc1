"""Multi-head self-attention, and the attention weights as a function of their own."""

import keras
from keras import ops

from keras_t2t.configs import is_count
from keras_t2t.layers.common import check_rank, inherited, precise_dtype, where
from keras_t2t.layers.fast_dense import FastDense


def attention_weights(queries, keys, scale: float):
    """Returns softmax(scale * queries keys'), each row summing to 1.

    Args:
        queries: (..., n, d).
        keys: (..., N, d).
        scale: factor of the scores.

    Returns:
        (..., n, N) in the dtype of `queries`; the softmax itself never runs in 16 bits.
    """
    scores = ops.matmul(queries * scale, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    weights = ops.softmax(ops.cast(scores, precise_dtype(queries.dtype)), axis=-1)
    return ops.cast(weights, queries.dtype)


@keras.saving.register_keras_serializable("keras_t2t")
class MultiHeadSelfAttention(keras.Layer):
    """Self-attention of a sequence of tokens, with one fused projection to queries, keys and values.

    `Attention` in `models/transformer_block.py` of the reference. Scores are scaled by the width of a head to the power -0.5.

    Glossary of shapes:
        B: batch; N: tokens; n: tokens whose result is asked for (1 or N); D: width; H: heads; d: width of a head, D / H.

    Args:
        num_heads: number of heads, a divisor of D.
        qkv_bias: whether queries, keys and values have a bias.
        attention_drop_rate: dropout of the attention weights, in training.
        projection_drop_rate: dropout of the result, in training.
        class_token_only: whether only the first token's result is computed, from all tokens.

    Input:
        (B, N, D).

    Output:
        (B, N, D), or (B, 1, D) with `class_token_only`.

    Raises:
        ValueError: if `num_heads` does not divide D, or the input is no sequence of tokens.
    """

    def __init__(
        self,
        num_heads: int,
        qkv_bias: bool = False,
        attention_drop_rate: float = 0.0,
        projection_drop_rate: float = 0.0,
        class_token_only: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_count(num_heads):
            raise ValueError(f"{where(self)}: expected a positive number of heads; received: num_heads={num_heads!r}")
        self.num_heads = num_heads
        self.qkv_bias = qkv_bias
        self.attention_drop_rate = attention_drop_rate
        self.projection_drop_rate = projection_drop_rate
        self.class_token_only = class_token_only

    def build(self, input_shape):
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        width = input_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"{where(self)}: expected num_heads to divide the width of the tokens; "
                f"received: num_heads={self.num_heads}, width={width}"
            )
        self.build_heads(input_shape)
        self.projection = FastDense(width, name="projection", **inherited(self))
        self.projection.build(input_shape)
        self.attention_dropout = keras.layers.Dropout(self.attention_drop_rate, **inherited(self))
        self.projection_dropout = keras.layers.Dropout(self.projection_drop_rate, **inherited(self))

    def build_heads(self, input_shape):
        """Creates the weights that `project_heads` uses."""
        self.qkv = FastDense(3 * input_shape[-1], name="qkv", use_bias=self.qkv_bias, **inherited(self))
        self.qkv.build(input_shape)

    def call(self, x):
        query_tokens = x[:, :1] if self.class_token_only else x
        return self.projection_dropout(self.apply_attention(*self.compute_weights(query_tokens, x)))

    def compute_weights(self, query_tokens, x):
        """Returns the weights (B, H, n, N) with which `query_tokens` (B, n, D) attend to x (B, N, D), and the values (B, H, N, d)."""
        queries, keys, values = self.project_heads(query_tokens, x)
        return attention_weights(queries, keys, queries.shape[-1] ** -0.5), values

    def apply_attention(self, weights, values):
        """Returns the projected mix (B, n, D) of the values (B, H, N, d) by weights (B, H, n, N)."""
        mixed = ops.matmul(self.attention_dropout(weights), values)  # (B, H, n, d)
        batch, heads, tokens, width = ops.shape(mixed)
        mixed = ops.reshape(ops.swapaxes(mixed, 1, 2), (batch, tokens, heads * width))  # (B, n, D)
        return self.projection(mixed)

    def project_heads(self, query_tokens, x):
        """Returns the queries (B, H, n, d) of the tokens `query_tokens` and the keys and values (B, H, N, d) of all tokens `x`."""
        if query_tokens is x:
            return self.split_heads(self.qkv(x), 3)
        width = x.shape[-1]
        queries = ops.matmul(query_tokens, self.qkv.kernel[:, :width])
        keys_values = ops.matmul(x, self.qkv.kernel[:, width:])
        if self.qkv_bias:
            queries += self.qkv.bias[:width]
            keys_values += self.qkv.bias[width:]
        return *self.split_heads(queries, 1), *self.split_heads(keys_values, 2)

    def split_heads(self, x, parts):
        """Returns `parts` tensors (B, H, n, d) of a projection (B, n, parts * D)."""
        batch, tokens, width = ops.shape(x)
        x = ops.reshape(x, (batch, tokens, parts, self.num_heads, width // parts // self.num_heads))
        x = ops.transpose(x, (2, 0, 3, 1, 4))  # (parts, B, H, n, d)
        return tuple(ops.unstack(x, parts, axis=0))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, input_shape[2]) if self.class_token_only else input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
            "attention_drop_rate": self.attention_drop_rate,
            "projection_drop_rate": self.projection_drop_rate,
            "class_token_only": self.class_token_only,
        }
