"""The base class of the two token attention layers, which are used between soft splits."""

from typing import Any

import keras

from keras_t2t.layers.common import check_rank, check_rate, sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.fast_layer_norm import FastLayerNorm
from keras_t2t.layers.mlp import MLP


class TokenAttention(keras.Layer):
    """Applies attention that turns wide tokens into narrower ones, so the residual connection starts from the values.

    The layer computes `x = values + projection(attention)`, then `x + mlp(norm(x))`.

    A subclass implements four methods:

    - `build_heads(input_shape)` creates the weights used by the other three methods.
    - `project_heads(x)` returns the queries, keys and values `(B, N, D)` of normalized tokens `(B, N, K)`.
    - `apply_attention(queries, keys, values)` returns the attention output `(B, N, D)`.
    - `compute_weights(queries, keys)` returns the attention weights `(B, n, N)` for any number of queries `(B, n, D)`.

    Glossary of shapes:
        B: batch; N: tokens; n: query tokens; K: width of a token after a soft split; D: `token_dim`.

    Args:
        token_dim: Width D of the head and of the output tokens.
        drop_rate: Dropout rate after the attention projection and after the MLP. Used in training only.
    """

    def __init__(self, token_dim: int = 64, drop_rate: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        check_rate(self, "drop_rate", drop_rate)
        self.token_dim = token_dim
        self.drop_rate = drop_rate

    def build(self, input_shape: tuple) -> None:
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        output_shape = self.compute_output_shape(input_shape)
        self.norm1 = FastLayerNorm(epsilon=1e-5, name="norm1", **sublayer_kwargs(self))
        self.norm1.build(input_shape)
        self.build_heads(input_shape)
        self.projection = FastDense(self.token_dim, name="projection", **sublayer_kwargs(self))
        self.projection.build(output_shape)
        self.norm2 = FastLayerNorm(epsilon=1e-5, name="norm2", **sublayer_kwargs(self))
        self.norm2.build(output_shape)
        self.mlp = MLP(self.token_dim, name="mlp", **sublayer_kwargs(self))
        self.mlp.build(output_shape)
        self.dropout = keras.layers.Dropout(self.drop_rate, **sublayer_kwargs(self))

    def call(self, x: Any, training: bool | None = None) -> Any:
        queries, keys, values = self.project_heads(self.norm1(x))  # (B, N, D) each
        attention_output = self.projection(self.apply_attention(queries, keys, values))
        x = values + self.dropout(attention_output)
        return x + self.dropout(self.mlp(self.norm2(x)))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:2], self.token_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "token_dim": self.token_dim, "drop_rate": self.drop_rate}
