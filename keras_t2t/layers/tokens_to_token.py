"""The T2T module, which turns an image into a grid of tokens through soft splits."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_t2t.configs import SoftSplits, check_soft_splits, check_token_attention, token_grid
from keras_t2t.layers.common import check_rank, sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.soft_split import SoftSplit
from keras_t2t.layers.token_performer import TokenPerformer
from keras_t2t.layers.token_transformer import TokenTransformer


@keras.saving.register_keras_serializable("keras_t2t")
class TokensToToken(keras.Layer):
    """Turns images into a grid of tokens in stages.

    Each stage is a soft split followed by token attention, whose output is reshaped to a grid. In the last stage, the soft
    split is followed by a projection instead. See section 3.1 of the paper. Corresponds to `T2T_module` in `models/t2t_vit.py`
    of the reference implementation.

    Args:
        embed_dim: Width of the output tokens.
        token_attention: Layer between two soft splits: `"performer"`, `"transformer"`, or `"convolution"`, which is a dense
            layer. Combined with the soft split before it, the dense layer is equivalent to a convolution.
        token_dim: Width of the tokens between two soft splits.
        soft_splits: `(kernel, stride, padding)` of each soft split.
        drop_rate: Dropout rate inside the token performers. Used in training only.
        return_stages: Whether to return the feature maps of all stages instead of only the last.

    Input shape:
        `(B, H, W, C)`. H and W may differ, and may be unknown when the model is built.

    Output shape:
        `(B, h, w, embed_dim)`, where `h, w = keras_t2t.configs.token_grid(soft_splits, H, W)`. With `return_stages`, a list:
        `(B, h, w, token_dim)` for every soft split but the last, each on its own grid, and then the above.

    Raises:
        ValueError: If `token_attention` is unknown, if `soft_splits` are invalid, or if the images are too small for one token.

    Example:

    >>> images = keras.Input((224, 224, 3))
    >>> keras_t2t.layers.TokensToToken(embed_dim=384)(images).shape
    (None, 14, 14, 384)
    """

    def __init__(
        self,
        embed_dim: int,
        token_attention: str = "performer",
        token_dim: int = 64,
        soft_splits: tuple = ((7, 4, 2), (3, 2, 1), (3, 2, 1)),
        drop_rate: float = 0.1,
        return_stages: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_token_attention(token_attention)
        self.embed_dim = embed_dim
        self.token_attention = token_attention
        self.token_dim = token_dim
        self.soft_splits = check_soft_splits(soft_splits)
        self.drop_rate = drop_rate
        self.return_stages = return_stages

        self.splits = [
            SoftSplit(*split, name=f"soft_split{i}", **sublayer_kwargs(self)) for i, split in enumerate(self.soft_splits, 1)
        ]
        self.attentions = [self._attention(name=f"attention{i}") for i in range(1, len(self.soft_splits))]
        self.projection = FastDense(embed_dim, name="projection", **sublayer_kwargs(self))

    def _attention(self, name):
        if self.token_attention == "performer":
            return TokenPerformer(self.token_dim, self.drop_rate, name=name, **sublayer_kwargs(self))
        if self.token_attention == "transformer":
            return TokenTransformer(self.token_dim, name=name, **sublayer_kwargs(self))
        return FastDense(self.token_dim, name=name, **sublayer_kwargs(self))

    def build(self, input_shape: tuple) -> None:
        check_rank(self, input_shape, 4, "images (batch, height, width, channels)")
        self.channels = input_shape[-1]
        widths = [self.channels] + [self.token_dim] * len(self.attentions)
        for split, layer, width in zip(self.splits, [*self.attentions, self.projection], widths, strict=True):
            split.build((None, None, None, width))
            layer.build((None, None, split.kernel_size**2 * width))

    def call(self, images: Any, training: bool | None = None) -> Any:
        maps = self.stage_maps(images)
        return maps if self.return_stages else maps[-1]

    def stage_maps(self, images: Any) -> list:
        """Returns the output of every stage for images `(B, H, W, C)`, as with `return_stages`."""
        maps, x = [], images
        for split, attention in zip(self.splits, self.attentions, strict=False):
            x = split(x)  # (B, h, w, K)
            batch, rows, columns, width = ops.shape(x)
            x = attention(ops.reshape(x, (batch, rows * columns, width)))  # (B, h * w, token_dim)
            x = ops.reshape(x, (batch, rows, columns, self.token_dim))
            maps.append(x)
        return [*maps, self.projection(self.splits[-1](x))]

    def compute_output_shape(self, input_shape: tuple) -> Any:
        widths = [self.token_dim] * len(self.attentions) + [self.embed_dim]
        shapes = stage_shapes(self.soft_splits, input_shape, widths)
        return shapes if self.return_stages else shapes[-1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "token_attention": self.token_attention,
            "token_dim": self.token_dim,
            "soft_splits": self.soft_splits,
            "drop_rate": self.drop_rate,
            "return_stages": self.return_stages,
        }


def stage_shapes(soft_splits: SoftSplits, image_shape: tuple, widths: Sequence[int]) -> list[tuple]:
    """Returns the output shapes `(B, h, w, width)` of the stages of a T2T module for images of shape `(B, H, W, C)`."""
    batch, height, width, _ = image_shape
    stages = enumerate(widths, 1)
    return [(batch, *token_grid(soft_splits[:count], height, width), channels) for count, channels in stages]
