"""The encoder block for inference."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_t2t.inference.folded import FoldedLayer, attend, standardize
from keras_t2t.layers.fast_dense import exact_gelu


@keras.saving.register_keras_serializable("keras_t2t")
class InferenceBlock(FoldedLayer):
    """An `EncoderBlock`, or one of the design studies, with its norms and scales folded into its projections.

    It works on a single matrix `(B * N, D)` of all tokens, because runtimes can then fuse the product with a constant matrix,
    the bias and GELU. The names of its weights determine which of the design studies it computes.

    Args:
        num_heads: Number of attention heads.
        epsilon: Epsilon of the LayerNorms.
        class_token_only: Whether to compute only the first token, which still attends to all tokens.
        shapes: Shapes of the weights that `fold_block` returns, by name.
        **kwargs: Arguments of `keras.Layer`.

    Input shape:
        `(B, N, D)`.

    Output shape:
        `(B, N, D)`, or `(B, 1, D)` with `class_token_only`. Densely connected blocks output more than D channels.

    Example:

    >>> model = keras_t2t.optimize_for_inference(keras_t2t.T2TViTTiny32())
    >>> block = model.get_layer("block1")
    >>> type(block).__name__
    'InferenceBlock'
    >>> block(keras.Input((65, 128))).shape
    (None, 65, 128)
    """

    def __init__(self, num_heads: int, epsilon: float, class_token_only: bool, shapes: Mapping[str, tuple], **kwargs: Any):
        super().__init__(shapes, **kwargs)
        self.num_heads = num_heads
        self.epsilon = epsilon
        self.class_token_only = class_token_only

    def call(self, x: Any) -> Any:
        _, tokens, width = ops.shape(x)
        x = ops.reshape(x, (-1, width))
        mixed = self.attention(standardize(x, self.epsilon), tokens)
        if self.class_token_only:
            x = first_tokens(x, tokens)
        block_input, x = x, x + mixed
        hidden = self.dense(standardize(x, self.epsilon), "fc1", gelu=True)
        if "scale1" in self.shapes:
            ghosts = [exact_gelu(hidden * self.folded[name]) for name in ("scale1", "scale2")]
            hidden = ops.concatenate([hidden, *ghosts], axis=-1)
        x = x + self.dense(hidden, "fc2")
        if "growth_kernel" in self.shapes:
            x = ops.concatenate([block_input, self.dense(x, "growth")], axis=-1)
        return ops.reshape(x, (-1, 1 if self.class_token_only else tokens, x.shape[-1]))

    def attention(self, x: Any, tokens: int) -> Any:
        """Returns the output of the attention.

        Args:
            x: Standardized tokens of shape `(B * N, D)`.
            tokens: Number of tokens of each image, N.

        Returns:
            Tensor of shape `(B * n, D)`; n is 1 with `class_token_only`, otherwise N.
        """
        width = x.shape[-1]
        if "query_kernel" in self.shapes:
            queries = self.heads(first_tokens(x, tokens), "query", 1, 1)
            keys, values = ops.split(self.heads(x, "key_value", 2, tokens), 2, axis=1)
        else:
            queries, keys, values = ops.split(self.heads(x, "qkv", 3, tokens), 3, axis=1)
        mixed = ops.swapaxes(attend(queries, keys, values), 1, 2)  # (B, n, H, d)
        mixed = self.dense(ops.reshape(mixed, (-1, width)), "projection")
        if "squeeze_kernel" not in self.shapes:
            return mixed
        mixed = ops.reshape(mixed, (-1, tokens, width))
        gate = ops.relu(ops.matmul(ops.mean(mixed, axis=1), self.folded["squeeze_kernel"]))
        gate = ops.sigmoid(ops.matmul(gate, self.folded["excite_kernel"]))  # (B, D)
        mixed = (mixed[:, :1] if self.class_token_only else mixed) * gate[:, None]
        return ops.reshape(mixed, (-1, width))

    def heads(self, x: Any, name: str, parts: int, tokens: int) -> Any:
        """Returns projections of tokens, split into heads.

        Args:
            x: Tokens of shape `(B * n, D)`.
            name: Prefix of the weights.
            parts: Number of projections in these weights.
            tokens: Number of tokens of each image, n.

        Returns:
            Tensor of shape `(B, parts * H, n, d)`.
        """
        width = x.shape[-1]
        x = self.dense(x, name)
        if f"{name}_scale" in self.shapes:  # half of each projection is computed; the other half is a multiple of it
            x = ops.reshape(x, (-1, parts, width // 2))
            x = ops.concatenate([x, x * self.folded[f"{name}_scale"]], axis=-1)
        x = ops.reshape(x, (-1, tokens, parts * self.num_heads, width // self.num_heads))
        return ops.swapaxes(x, 1, 2)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        batch, tokens, width = input_shape
        growth = self.shapes.get("growth_bias", (0,))[0]
        return (batch, 1 if self.class_token_only else tokens, width + growth)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "epsilon": self.epsilon,
            "class_token_only": self.class_token_only,
        }


def first_tokens(x: Any, tokens: int) -> Any:
    """Returns the first token `(B, D)` of each image from all tokens `x` `(B * tokens, D)`."""
    return ops.reshape(x, (-1, tokens, x.shape[-1]))[:, 0]
