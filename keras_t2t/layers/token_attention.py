"""What the two token attentions have in common: the block between two soft splits."""

import keras

from keras_t2t.layers.common import check_rank, check_rate, inherited
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.fast_layer_norm import FastLayerNorm
from keras_t2t.layers.mlp import MLP


class TokenAttention(keras.Layer):
    """Shortens long tokens with attention whose shortcut is the value: x = v + projection(attention), then x + MLP(norm(x)).

    A subclass has four methods: `build_heads(input_shape)` creates the weights that the others use, `project_heads(x)`
    returns the queries, keys and values, each (B, N, D), of the normalized tokens x (B, N, K), `apply_attention(queries, keys, values)` the
    values (B, N, D) mixed by the attention of the queries to the keys, and `compute_weights(queries, keys)` the weights of that attention
    (B, n, N), for as many queries (B, n, D) as are given.

    Glossary of shapes:
        B: batch; N: tokens; K: width of a token that comes from a soft split; D: `token_dim`.
    """

    def __init__(self, token_dim: int = 64, drop_rate: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        check_rate(self, "drop_rate", drop_rate)
        self.token_dim = token_dim
        self.drop_rate = drop_rate

    def build(self, input_shape):
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        short = (*input_shape[:2], self.token_dim)
        self.norm1 = FastLayerNorm(epsilon=1e-5, name="norm1", **inherited(self))
        self.norm1.build(input_shape)
        self.build_heads(input_shape)
        self.projection = FastDense(self.token_dim, name="projection", **inherited(self))
        self.projection.build(short)
        self.norm2 = FastLayerNorm(epsilon=1e-5, name="norm2", **inherited(self))
        self.norm2.build(short)
        self.mlp = MLP(self.token_dim, name="mlp", **inherited(self))
        self.mlp.build(short)
        self.dropout = keras.layers.Dropout(self.drop_rate, **inherited(self))

    def call(self, x):
        queries, keys, values = self.project_heads(self.norm1(x))  # (B, N, D) each
        mixed = self.projection(self.apply_attention(queries, keys, values))
        x = values + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm2(x)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], self.token_dim)

    def get_config(self):
        return {**super().get_config(), "token_dim": self.token_dim, "drop_rate": self.drop_rate}
