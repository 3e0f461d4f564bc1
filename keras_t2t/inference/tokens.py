"""The T2T module for inference, with soft splits, their norms and their projections expressed as convolutions."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.configs import check_soft_splits
from keras_t2t.inference.folded import RANDOM_FEATURES, FoldedLayer, attend, standardize
from keras_t2t.layers.common import NOT_QUANTIZED, precise_dtype
from keras_t2t.layers.token_performer import performer_attention
from keras_t2t.layers.tokens_to_token import stage_shapes

MAX_WIDTH = 80
"""Width up to which the product of two of the performer's features, at most `exp(width)`, cannot overflow float32."""


@keras.saving.register_keras_serializable("keras_t2t")
class InferenceTokensToToken(FoldedLayer):
    """A `TokensToToken` that never stores windows in memory.

    A soft split followed by a dense layer is a convolution. A LayerNorm between the two subtracts the mean of each window and
    divides by its std. A kernel with columns that sum to zero subtracts the mean. The std is one number for each window, the
    same for all channels, so the result of the convolution can be divided by it.

    In bfloat16, the first soft split of the images is still computed in float32. Otherwise, rounding would leave nothing of
    areas with little contrast.

    Args:
        token_attention: See `keras_t2t.layers.TokensToToken`.
        soft_splits: See `keras_t2t.layers.TokensToToken`.
        epsilon: Epsilon of the LayerNorms.
        return_stages: See `keras_t2t.layers.TokensToToken`.
        shapes: Shapes of the weights that `fold_tokens` returns, by name.
        **kwargs: Arguments of `keras.Layer`.

    Input shape:
        `(B, H, W, C)`.

    Output shape:
        See `keras_t2t.layers.TokensToToken`.

    Example:

    >>> model = keras_t2t.optimize_for_inference(keras_t2t.T2TViTTiny32())
    >>> layer = model.get_layer("tokens_to_token")
    >>> type(layer).__name__
    'InferenceTokensToToken'
    >>> layer(keras.Input((32, 32, 3))).shape
    (None, 8, 8, 128)
    """

    def __init__(
        self,
        token_attention: str,
        soft_splits: tuple,
        epsilon: float,
        shapes: Mapping[str, tuple],
        return_stages: bool = False,
        **kwargs: Any,
    ):
        super().__init__(shapes, autocast=False, **kwargs)
        self.token_attention = token_attention
        self.soft_splits = check_soft_splits(soft_splits)
        self.epsilon = epsilon
        self.return_stages = return_stages

    def call(self, images: Any) -> Any:
        maps, x = [], ops.cast(images, precise_dtype(self.compute_dtype))
        for i, split in enumerate(self.soft_splits[:-1], 1):
            if self.token_attention == "convolution":
                x = self.project(x, f"split{i}", split)
            else:
                x = self.stage(x, f"split{i}", split)
            maps.append(x)
        x = self.project(x, f"split{len(self.soft_splits)}", self.soft_splits[-1])
        return [*maps, x] if self.return_stages else x

    def project(self, x: Any, name: str, split: tuple) -> Any:
        """Returns a soft split of `x` `(B, H, W, C)` followed by a dense layer: `(B, h, w, units)`."""
        x = convolve(pad(x, split), self.folded[f"{name}_kernel"], split)
        return ops.cast(x, self.compute_dtype) + self.folded[f"{name}_bias"]

    def stage(self, x: Any, name: str, split: tuple) -> Any:
        """Returns a soft split of `x` `(B, H, W, C)` followed by attention between its tokens: `(B, h, w, D)`."""
        x = pad(x, split)
        with keras.name_scope(NOT_QUANTIZED):
            variance = window_variance(ops.cast(x, precise_dtype(x.dtype)), split)
            scale = ops.cast(ops.rsqrt(variance + self.epsilon), x.dtype)  # (B, h, w, 1)
            parts = [convolve(x, part, split) * scale for part in ops.split(self.folded[f"{name}_kernel"], 3, axis=-1)]
            parts = [ops.cast(part, self.compute_dtype) for part in parts]
        _, rows, columns, width = ops.shape(parts[0])
        biases = ops.split(self.folded[f"{name}_bias"], 3)
        queries, keys, values = (
            ops.reshape(part + bias, (-1, rows * columns, width)) for part, bias in zip(parts, biases, strict=True)
        )
        if self.token_attention == "performer":
            mixed = performer(queries, keys, values, self.folded[f"{name}_{RANDOM_FEATURES}"])
        else:
            mixed = attend(queries, keys, values)
        mixed, values = (ops.reshape(part, (-1, width)) for part in (mixed, values))
        x = values + self.dense(mixed, f"{name}_projection")
        hidden = self.dense(standardize(x, self.epsilon), f"{name}_fc1", gelu=True)
        return ops.reshape(x + self.dense(hidden, f"{name}_fc2"), (-1, rows, columns, width))

    def compute_output_shape(self, input_shape: tuple) -> Any:
        names = ["split{}_bias" if self.token_attention == "convolution" else "split{}_fc2_bias"] * (len(self.soft_splits) - 1)
        widths = [self.shapes[name.format(i)][0] for i, name in enumerate([*names, "split{}_bias"], 1)]
        shapes = stage_shapes(self.soft_splits, input_shape, widths)
        return shapes if self.return_stages else shapes[-1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "token_attention": self.token_attention,
            "soft_splits": self.soft_splits,
            "epsilon": self.epsilon,
            "return_stages": self.return_stages,
        }


def pad(x: Any, split: tuple) -> Any:
    """Returns `x` `(B, H, W, C)` with the zero padding of a soft split."""
    _, _, padding = split
    return ops.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)]) if padding else x


def convolve(x: Any, kernel: Any, split: tuple) -> Any:
    """Returns the convolution `(B, h, w, units)` of a padded `x` with a kernel `(k, k, C, units)` and a soft split's stride."""
    return ops.conv(x, ops.cast(kernel, x.dtype), split[1], "valid", "channels_last")


def window_variance(x: Any, split: tuple) -> Any:
    """Returns the variance `(B, h, w, 1)` of each window of a padded `x` `(B, H, W, C)`.

    It is the variance of the pixels' means plus the mean of the pixels' variances. Both are sums of squared deviations.
    Computing the mean square minus the squared mean would lose precision in bright areas with little contrast.
    """
    mean = ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
    size = split[0] ** 2
    kernel = np.zeros((size, 2, size + 1), "float32")
    kernel[:, 0, :size] = np.eye(size) - 1 / size  # deviation of each pixel's mean from the mean of the window
    kernel[:, 1, size] = 1 / size
    kernel = ops.convert_to_tensor(kernel.reshape(split[0], split[0], 2, size + 1), dtype=x.dtype)
    statistics = convolve(ops.concatenate([mean, variance], axis=-1), kernel, split)  # (B, h, w, size + 1)
    return ops.mean(ops.square(statistics[..., :size]), axis=-1, keepdims=True) + statistics[..., size:]


def performer(queries: Any, keys: Any, values: Any, random_features: Any) -> Any:
    """Computes the same result as `keras_t2t.layers.token_performer.performer_attention`, in at least float32.

    Args:
        queries: Tensor of shape `(B, N, D)`.
        keys: Tensor of shape `(B, N, D)`.
        values: Tensor of shape `(B, N, D)`.
        random_features: Tensor of shape `(D, m)`, the transpose of what `performer_attention` takes.

    Returns:
        Tensor of shape `(B, N, D)`.
    """
    dtype = queries.dtype
    queries, keys, values = (ops.cast(x, precise_dtype(dtype)) for x in (queries, keys, values))
    if queries.shape[-1] > MAX_WIDTH:
        return ops.cast(performer_attention(queries, keys, values, ops.transpose(random_features)), dtype)
    queries, keys = (positive_features(x, random_features) for x in (queries, keys))  # (B, N, m)
    total = ops.sum(keys, axis=1, keepdims=True)  # (B, 1, m)
    summary = ops.matmul(ops.swapaxes(keys, 1, 2), values)  # (B, m, D)
    mixed = ops.matmul(queries, summary) / (ops.sum(queries * total, axis=-1, keepdims=True) + 1e-8)
    return ops.cast(mixed, dtype)


def positive_features(x: Any, random_features: Any) -> Any:
    """Returns the positive random features `(B, N, m)` of queries or keys `(B, N, D)`."""
    _, tokens, width = ops.shape(x)
    features = random_features.shape[1]
    x = ops.reshape(x, (-1, width))
    half_square = 0.5 * ops.sum(x * x, axis=-1, keepdims=True)
    with keras.name_scope(NOT_QUANTIZED):
        projected = ops.matmul(x, random_features)
    return ops.reshape(ops.exp(projected - half_square) * features**-0.5, (-1, tokens, features))
