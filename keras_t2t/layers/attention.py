"""Multi-head self-attention, and a function that computes attention weights."""

from typing import Any

import keras
from keras import ops

from keras_t2t.configs import is_count
from keras_t2t.layers.common import check_rank, layer_path, precise_dtype, sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense


def attention_weights(queries: Any, keys: Any, scale: float) -> Any:
    """Returns `softmax(scale * queries @ keys.T)`. Each row sums to 1.

    Args:
        queries: Tensor `(..., n, d)`.
        keys: Tensor `(..., N, d)`.
        scale: Factor by which the scores are multiplied.

    Returns:
        Tensor `(..., n, N)` in the dtype of `queries`. The softmax itself is computed in at least float32.
    """
    scores = ops.matmul(queries * scale, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    weights = ops.softmax(ops.cast(scores, precise_dtype(queries.dtype)), axis=-1)
    return ops.cast(weights, queries.dtype)


@keras.saving.register_keras_serializable("keras_t2t")
class MultiHeadSelfAttention(keras.Layer):
    """Self-attention over a sequence of tokens, with a single fused projection to queries, keys and values.

    Corresponds to `Attention` in `models/transformer_block.py` of the reference implementation. Scores are scaled by
    `d**-0.5`.

    Glossary of shapes:
        B: batch; N: tokens; n: query tokens (1 or N); D: width; H: heads; d: width of a head, D / H.

    Args:
        num_heads: Number of attention heads. Must divide D.
        qkv_bias: Whether queries, keys and values have a bias.
        attention_drop_rate: Dropout rate of the attention weights. Used in training only.
        projection_drop_rate: Dropout rate of the output. Used in training only.
        class_token_only: Whether to compute the output of the first token only. This token still attends to all tokens.

    Input shape:
        `(B, N, D)`.

    Output shape:
        `(B, N, D)`, or `(B, 1, D)` with `class_token_only`.

    Raises:
        ValueError: If `num_heads` does not divide D, or if the input is not a sequence of tokens.

    Example:

    >>> x = keras.Input((197, 384))
    >>> keras_t2t.layers.MultiHeadSelfAttention(num_heads=6)(x).shape
    (None, 197, 384)
    """

    def __init__(
        self,
        num_heads: int,
        qkv_bias: bool = False,
        attention_drop_rate: float = 0.0,
        projection_drop_rate: float = 0.0,
        class_token_only: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not is_count(num_heads):
            raise ValueError(f"{layer_path(self)}: expected num_heads to be a positive integer; received: {num_heads=}")
        self.num_heads = num_heads
        self.qkv_bias = qkv_bias
        self.attention_drop_rate = attention_drop_rate
        self.projection_drop_rate = projection_drop_rate
        self.class_token_only = class_token_only

    def build(self, input_shape: tuple) -> None:
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        width = input_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                f"{layer_path(self)}: expected num_heads to divide the width of the tokens; "
                f"received: num_heads={self.num_heads}, width={width}"
            )
        self.build_heads(input_shape)
        self.projection = FastDense(width, name="projection", **sublayer_kwargs(self))
        self.projection.build(input_shape)
        self.attention_dropout = keras.layers.Dropout(self.attention_drop_rate, **sublayer_kwargs(self))
        self.projection_dropout = keras.layers.Dropout(self.projection_drop_rate, **sublayer_kwargs(self))

    def build_heads(self, input_shape: tuple) -> None:
        """Creates the weights used by `project_heads`."""
        self.qkv = FastDense(3 * input_shape[-1], name="qkv", use_bias=self.qkv_bias, **sublayer_kwargs(self))
        self.qkv.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        query_tokens = x[:, :1] if self.class_token_only else x
        return self.projection_dropout(self.apply_attention(*self.compute_weights(query_tokens, x)))

    def compute_weights(self, query_tokens: Any, x: Any) -> tuple:
        """Returns the attention weights `(B, H, n, N)` of `query_tokens` to `x`, and the values `(B, H, N, d)`.

        Args:
            query_tokens: Tensor `(B, n, D)`.
            x: Tensor `(B, N, D)`.
        """
        queries, keys, values = self.project_heads(query_tokens, x)
        return attention_weights(queries, keys, queries.shape[-1] ** -0.5), values

    def apply_attention(self, weights: Any, values: Any) -> Any:
        """Returns the projected output `(B, n, D)` for weights `(B, H, n, N)` and values `(B, H, N, d)`."""
        x = ops.matmul(self.attention_dropout(weights), values)  # (B, H, n, d)
        batch, heads, tokens, width = ops.shape(x)
        x = ops.reshape(ops.swapaxes(x, 1, 2), (batch, tokens, heads * width))  # (B, n, D)
        return self.projection(x)

    def project_heads(self, query_tokens: Any, x: Any) -> tuple:
        """Returns the queries `(B, H, n, d)` of `query_tokens`, and the keys and values `(B, H, N, d)` of `x`."""
        if query_tokens is x:
            return self.split_heads(self.qkv(x), 3)
        width = x.shape[-1]
        queries = ops.matmul(query_tokens, self.qkv.kernel[:, :width])
        keys_values = ops.matmul(x, self.qkv.kernel[:, width:])
        if self.qkv_bias:
            queries += self.qkv.bias[:width]
            keys_values += self.qkv.bias[width:]
        return *self.split_heads(queries, 1), *self.split_heads(keys_values, 2)

    def split_heads(self, x: Any, parts: int) -> tuple:
        """Splits a projection `(B, n, parts * D)` into `parts` tensors `(B, H, n, d)`."""
        batch, tokens, width = ops.shape(x)
        x = ops.reshape(x, (batch, tokens, parts, self.num_heads, width // parts // self.num_heads))
        x = ops.transpose(x, (2, 0, 3, 1, 4))  # (parts, B, H, n, d)
        return tuple(ops.unstack(x, parts, axis=0))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 1, input_shape[2]) if self.class_token_only else input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
            "attention_drop_rate": self.attention_drop_rate,
            "projection_drop_rate": self.projection_drop_rate,
            "class_token_only": self.class_token_only,
        }
