"""Multi-head self-attention, and the attention weights as a function of their own."""

import keras
from keras import ops

from keras_t2t.layers.common import check_rank, dense, precise_dtype, where


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
        self.projection = dense(width, "projection", dtype=self.dtype_policy)
        self.projection.build(input_shape)
        self.attention_dropout = keras.layers.Dropout(self.attention_drop_rate, dtype=self.dtype_policy)
        self.projection_dropout = keras.layers.Dropout(self.projection_drop_rate, dtype=self.dtype_policy)

    def build_heads(self, input_shape):
        """Creates the weights that `project_heads` uses."""
        self.qkv = dense(3 * input_shape[-1], "qkv", use_bias=self.qkv_bias, dtype=self.dtype_policy)
        self.qkv.build(input_shape)

    def call(self, x):
        return self.attend(x[:, :1] if self.class_token_only else x, x)

    def attend(self, asking, x):
        """Returns the result (B, n, D) for the tokens `asking` (B, n, D), which attend to all tokens `x` (B, N, D)."""
        queries, keys, values = (self.split_heads(part) for part in self.project_heads(asking, x))
        weights = attention_weights(queries, keys, queries.shape[-1] ** -0.5)  # (B, H, n, N)
        weights = self.attention_dropout(weights)
        mixed = self.merge_heads(ops.matmul(weights, values))  # (B, n, D)
        return self.projection_dropout(self.projection(mixed))

    def project_heads(self, asking, x):
        """Returns the queries (B, n, D) of `asking` and the keys and values (B, N, D) of `x`, the heads side by side in D."""
        if asking is x:
            return ops.split(self.qkv(x), 3, axis=-1)
        width = x.shape[-1]
        queries = ops.matmul(asking, self.qkv.kernel[:, :width])
        keys_values = ops.matmul(x, self.qkv.kernel[:, width:])
        if self.qkv_bias:
            queries += self.qkv.bias[:width]
            keys_values += self.qkv.bias[width:]
        return queries, *ops.split(keys_values, 2, axis=-1)

    def split_heads(self, x):
        """(B, n, D) to (B, H, n, d)."""
        return ops.swapaxes(ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, x.shape[-1] // self.num_heads)), 1, 2)

    def merge_heads(self, x):
        """(B, H, n, d) to (B, n, D)."""
        batch, heads, tokens, width = ops.shape(x)
        return ops.reshape(ops.swapaxes(x, 1, 2), (batch, tokens, heads * width))

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
