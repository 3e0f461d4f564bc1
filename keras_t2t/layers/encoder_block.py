"""The pre-norm transformer block of the backbone."""

from typing import Any

import keras

from keras_t2t.configs import mlp_width
from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.common import check_rank, layer_path, sublayer_kwargs
from keras_t2t.layers.drop_path import DropPath
from keras_t2t.layers.fast_layer_norm import FastLayerNorm
from keras_t2t.layers.mlp import MLP


@keras.saving.register_keras_serializable("keras_t2t")
class EncoderBlock(keras.Layer):
    """A pre-norm transformer block: `x + drop_path(attention(norm(x)))`, then `x + drop_path(mlp(norm(x)))`.

    Corresponds to `Block` in `models/transformer_block.py` of the reference implementation. Subclasses can replace the
    attention or the MLP by setting `attention_class` or `mlp_class`.

    Args:
        num_heads: Number of attention heads. Must divide D.
        mlp_ratio: Hidden width of the MLP, as a multiple of D.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_epsilon: Epsilon of the LayerNorms.
        drop_rate: Dropout rate after the attention projection and after each layer of the MLP. Used in training only.
        attention_drop_rate: Dropout rate of the attention weights. Used in training only.
        drop_path_rate: Probability of dropping a residual branch for a sample, separately for each of the two branches. Used in
            training only.
        class_token_only: Whether to compute the output of the first token only. This token still attends to all tokens. In the
            last block of a classifier, this gives the same class token at a fraction of the cost.

    Input shape:
        `(B, N, D)`.

    Output shape:
        `(B, N, D)`, or `(B, 1, D)` with `class_token_only`.

    Raises:
        ValueError: If `num_heads` does not divide D, or if the input is not a sequence of tokens.

    Example:

    >>> x = keras.Input((197, 384))
    >>> x = keras_t2t.layers.EncoderBlock(num_heads=6, mlp_ratio=3.0)(x)
    >>> keras_t2t.layers.EncoderBlock(num_heads=6, mlp_ratio=3.0, class_token_only=True)(x).shape
    (None, 1, 384)
    """

    attention_class: type[keras.Layer] = MultiHeadSelfAttention
    mlp_class: type[keras.Layer] = MLP
    rematerialize = False
    """Whether to compute the attention and the MLP again in the backward pass of training, instead of keeping their results.

    This takes less memory and more time. Saved models do not store it. It needs Keras 3.9 or newer.
    """

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
        **kwargs: Any,
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

        self.norm1 = FastLayerNorm(epsilon=norm_epsilon, name="norm1", **sublayer_kwargs(self))
        self.attention = self.attention_class(
            num_heads,
            qkv_bias=qkv_bias,
            attention_drop_rate=attention_drop_rate,
            projection_drop_rate=drop_rate,
            class_token_only=class_token_only,
            name="attention",
            **sublayer_kwargs(self),
        )
        self.norm2 = FastLayerNorm(epsilon=norm_epsilon, name="norm2", **sublayer_kwargs(self))
        self.drop_path = DropPath(drop_path_rate, **sublayer_kwargs(self))

    def build(self, input_shape: tuple) -> None:
        check_rank(self, input_shape, 3, "a sequence of tokens (batch, tokens, width)")
        self.norm1.build(input_shape)
        self.attention.build(input_shape)
        self.norm2.build(input_shape)
        hidden_dim = mlp_width(input_shape[-1], self.mlp_ratio)
        self.mlp = self.mlp_class(hidden_dim, self.drop_rate, name="mlp", **sublayer_kwargs(self))
        self.mlp.build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        attention_output = self._branch(self.norm1, self.attention, x, training)
        return self.residual_mlp(x[:, :1] if self.class_token_only else x, attention_output, training)

    def residual_mlp(self, x: Any, attention_output: Any, training: bool | None = None) -> Any:
        """Returns the output of the block, given the tokens `x` and the output of the attention, both `(B, n, D)`."""
        x = x + self.drop_path(attention_output)
        return x + self.drop_path(self._branch(self.norm2, self.mlp, x, training))

    def _branch(self, norm, layer, x, training):
        """Returns `layer(norm(x))`."""
        if not (training and self.rematerialize):
            return layer(norm(x, training=training), training=training)
        if self.drop_rate or self.attention_drop_rate:
            raise ValueError(
                f"{layer_path(self)}: cannot compute dropout again with the same random numbers. Set rematerialize=False; "
                f"received: drop_rate={self.drop_rate}, attention_drop_rate={self.attention_drop_rate}"
            )
        variables = [*norm.variables, *layer.variables]

        def branch(x, *values):
            with keras.StatelessScope(zip(variables, values, strict=True)):
                return layer(norm(x, training=training), training=training)

        # The values are arguments because TensorFlow may run the second pass after the optimizer has changed the variables.
        return keras.remat(branch)(x, *map(keras.ops.copy, variables))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 1, input_shape[2]) if self.class_token_only else input_shape

    def get_config(self) -> dict[str, Any]:
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
