"""The pre-norm transformer block of the backbone."""

import keras

from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import check_rank, inherited
from keras_t2t.layers.drop_path import DropPath
from keras_t2t.layers.fast_layer_norm import FastLayerNorm
from keras_t2t.layers.mlp import MLP


@keras.saving.register_keras_serializable("keras_t2t")
class EncoderBlock(keras.Layer):
    """x + drop_path(attention(norm(x))), then x + drop_path(mlp(norm(x))). `Block` in `models/transformer_block.py`.

    Subclasses with another attention or MLP name it in `attention_class` or `mlp_class`.

    Args:
        num_heads: attention heads, a divisor of D.
        mlp_ratio: hidden width of the MLP over D.
        qkv_bias: whether queries, keys and values have a bias.
        norm_epsilon: epsilon of the LayerNorms.
        drop_rate: dropout after the attention's projection and the MLP's layers, in training.
        attention_drop_rate: dropout of the attention weights, in training.
        drop_path_rate: probability of dropping each of the two residual branches of a sample, in training.
        class_token_only: whether only the first token is computed (from all tokens), for the last block of a classifier: the
            same result for that token at a fraction of the work.

    Input:
        (B, N, D).

    Output:
        (B, N, D), or (B, 1, D) with `class_token_only`.
    """

    attention_class = MultiHeadSelfAttention
    mlp_class = MLP

    def __init__(
        self,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        norm_epsilon: float = 1e-5,
        drop_rate: float = 0.0,
        attention_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        class_token_only: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.qkv_bias = qkv_bias
        self.norm_epsilon = norm_epsilon
        self.drop_rate = drop_rate
        self.attention_drop_rate = attention_drop_rate
        self.drop_path_rate = drop_path_rate
        self.class_token_only = class_token_only

        self.norm1 = FastLayerNorm(epsilon=norm_epsilon, name="norm1", **inherited(self))
        self.attention = self.attention_class(
            num_heads,
            qkv_bias=qkv_bias,
            attention_drop_rate=attention_drop_rate,
            projection_drop_rate=drop_rate,
            class_token_only=class_token_only,
            name="attention",
            **inherited(self),
        )
        self.norm2 = FastLayerNorm(epsilon=norm_epsilon, name="norm2", **inherited(self))
        self.drop_path = DropPath(drop_path_rate, **inherited(self))

    def build(self, input_shape):
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        self.norm1.build(input_shape)
        self.attention.build(input_shape)
        self.norm2.build(input_shape)
        hidden_dim = int(input_shape[-1] * self.mlp_ratio)
        self.mlp = self.mlp_class(hidden_dim, self.drop_rate, name="mlp", **inherited(self))
        self.mlp.build(input_shape)

    def call(self, x):
        mixed = self.attention(self.norm1(x))
        return self.residual_mlp(x[:, :1] if self.class_token_only else x, mixed)

    def residual_mlp(self, x, mixed):
        """Returns the block's result for the tokens x (B, n, D) whose attention's result is `mixed` (B, n, D)."""
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, input_shape[2]) if self.class_token_only else input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "norm_epsilon": self.norm_epsilon,
            "drop_rate": self.drop_rate,
            "attention_drop_rate": self.attention_drop_rate,
            "drop_path_rate": self.drop_path_rate,
            "class_token_only": self.class_token_only,
        }
