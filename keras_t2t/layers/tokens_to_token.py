"""The T2T module: from an image to a grid of tokens through soft splits."""

import keras
from keras import ops

from keras_t2t.configs import check_soft_splits, check_token_attention, token_grid
from keras_t2t.layers.common import check_rank, inherited
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.soft_split import SoftSplit
from keras_t2t.layers.token_performer import TokenPerformer
from keras_t2t.layers.token_transformer import TokenTransformer


@keras.saving.register_keras_serializable("keras_t2t")
class TokensToToken(keras.Layer):
    """Turns images into a grid of tokens step by step: soft split, token attention, back on the grid, and so on.

    Paper, section 3.1; `T2T_module` in `models/t2t_vit.py` of the reference. The last soft split is followed by a projection.

    Args:
        embed_dim: width of the tokens that leave.
        token_attention: what models the tokens between two soft splits: `"performer"`, `"transformer"`, or `"convolution"`, a
            dense layer, which together with its soft split is a convolution.
        token_dim: width of the tokens between two soft splits.
        soft_splits: (kernel, stride, padding) of each soft split.
        drop_rate: dropout inside the token performers, in training.

    Input:
        (B, H, W, C); H and W may differ and may be unknown when the model is built.

    Output:
        (B, h, w, embed_dim), h and w as `keras_t2t.configs.token_grid` tells.

    Raises:
        ValueError: for an unknown `token_attention`, soft splits that are none, and images too small for one token.
    """

    def __init__(
        self,
        embed_dim: int,
        token_attention: str = "performer",
        token_dim: int = 64,
        soft_splits: tuple = ((7, 4, 2), (3, 2, 1), (3, 2, 1)),
        drop_rate: float = 0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_token_attention(token_attention)
        self.embed_dim = embed_dim
        self.token_attention = token_attention
        self.token_dim = token_dim
        self.soft_splits = check_soft_splits(soft_splits)
        self.drop_rate = drop_rate

        self.splits = [
            SoftSplit(*split, name=f"soft_split{i}", **inherited(self)) for i, split in enumerate(self.soft_splits, 1)
        ]
        self.attentions = [self._attention(name=f"attention{i}") for i in range(1, len(self.soft_splits))]
        self.projection = FastDense(embed_dim, name="projection", **inherited(self))

    def _attention(self, name):
        if self.token_attention == "performer":
            return TokenPerformer(self.token_dim, self.drop_rate, name=name, **inherited(self))
        if self.token_attention == "transformer":
            return TokenTransformer(self.token_dim, name=name, **inherited(self))
        return FastDense(self.token_dim, name=name, **inherited(self))

    def build(self, input_shape):
        check_rank(self, input_shape, 4, "images (batch, height, width, channels)")
        channels = input_shape[-1]
        for split, attention in zip(self.splits, self.attentions, strict=False):
            attention.build((input_shape[0], None, split.kernel_size**2 * channels))
            channels = self.token_dim
        self.channels = input_shape[-1]
        self.projection.build((input_shape[0], None, self.splits[-1].kernel_size ** 2 * channels))

    def call(self, images):
        return self.stage_maps(images)[-1]

    def stage_maps(self, images):
        """Returns what every stage makes of images (B, H, W, C): maps (B, h, w, token_dim), the last (B, h, w, embed_dim)."""
        maps, x = [], images
        for split, attention in zip(self.splits, self.attentions, strict=False):
            x = split(x)  # (B, h, w, K)
            batch, rows, columns, width = ops.shape(x)
            x = attention(ops.reshape(x, (batch, rows * columns, width)))  # (B, h * w, token_dim)
            x = ops.reshape(x, (batch, rows, columns, self.token_dim))
            maps.append(x)
        return [*maps, self.projection(self.splits[-1](x))]

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, *token_grid(self.soft_splits, height, width), self.embed_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "token_attention": self.token_attention,
            "token_dim": self.token_dim,
            "soft_splits": self.soft_splits,
            "drop_rate": self.drop_rate,
        }
