"""The token performer: attention between two soft splits whose cost is linear in the number of tokens."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import precise_dtype, sublayer_kwargs
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.token_attention import TokenAttention


def performer_features(x: Any, random_features: Any) -> Any:
    """Returns positive random features whose inner products approximate `exp(x . y)`.

    They are `exp(x @ w.T - |x|^2 / 2) / sqrt(m)`, where w are the `random_features`. See Choromanski et al., "Rethinking
    Attention with Performers", ICLR 2021, lemma 1.

    Args:
        x: Tensor `(..., N, D)`.
        random_features: Tensor `(m, D)`.

    Returns:
        Tensor `(..., N, m)`.
    """
    half_square = ops.sum(ops.square(x), axis=-1, keepdims=True) / 2  # (..., N, 1)
    projected = ops.matmul(x, ops.transpose(random_features))  # (..., N, m)
    return ops.exp(projected - half_square) / random_features.shape[0] ** 0.5


def performer_weights(queries: Any, keys: Any, random_features: Any) -> Any:
    """Returns the performer's implicit attention weights.

    They are `phi(q) @ phi(k).T` divided by the sum of each row, where phi is `performer_features`.

    Args:
        queries: Tensor `(..., n, D)`, in at least float32.
        keys: Tensor `(..., N, D)`, in at least float32.
        random_features: Tensor `(m, D)`.

    Returns:
        Tensor `(..., n, N)`. Each row sums to 1, except for the effect of the 1e-8 in the denominator.
    """
    queries, keys = (performer_features(x, random_features) for x in (queries, keys))  # (..., n, m), (..., N, m)
    weights = ops.matmul(queries, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    return weights / (ops.sum(weights, axis=-1, keepdims=True) + 1e-8)


def performer_attention(queries: Any, keys: Any, values: Any, random_features: Any) -> Any:
    """Returns the output of the performer's attention, in time and memory linear in N.

    The tensors must be at least float32. In 16 bits, the exponentials can overflow and the 1e-8 can round to 0.

    Args:
        queries: Tensor `(..., N, D)`.
        keys: Tensor `(..., N, D)`.
        values: Tensor `(..., N, D)`.
        random_features: Tensor `(m, D)`.

    Returns:
        Tensor `(..., N, D)`.
    """
    queries, keys = (performer_features(x, random_features) for x in (queries, keys))  # (..., N, m)
    normalizer = ops.matmul(queries, ops.sum(keys, axis=-2)[..., None])  # (..., N, 1)
    summary = ops.matmul(ops.swapaxes(keys, -1, -2), values)  # (..., m, D)
    return ops.matmul(queries, summary) / (normalizer + 1e-8)


@keras.saving.register_keras_serializable("keras_t2t")
class TokenPerformer(TokenAttention):
    """Models the tokens between two soft splits with single-head performer attention.

    See section 3.1 of the paper. Corresponds to `models/token_performer.py` in the reference implementation. The fused
    projection has a bias and returns keys, queries and values, in that order. The random features are frozen. The residual
    connection around the attention starts from the values.

    Args:
        token_dim: Width D of the head and of the output tokens. There are `D // 2` random features, but at least one.
        drop_rate: Dropout rate after the attention projection and after the MLP. Used in training only.

    Input shape:
        `(B, N, K)`, where K is the window size times the channels of the preceding soft split.

    Output shape:
        `(B, N, D)`. Time and memory grow linearly with N. No tensor has the shape `(N, N)`.

    Raises:
        ValueError: If `drop_rate` is not in [0, 1), or if the input is not a sequence of tokens.

    Example:

    >>> x = keras.Input((3136, 147))
    >>> keras_t2t.layers.TokenPerformer(token_dim=64)(x).shape
    (None, 3136, 64)
    """

    def __init__(self, token_dim: int = 64, drop_rate: float = 0.1, **kwargs: Any):
        super().__init__(token_dim, drop_rate, **kwargs)

    def build_heads(self, input_shape: tuple) -> None:
        self.kqv = FastDense(3 * self.token_dim, name="kqv", **sublayer_kwargs(self))
        self.kqv.build(input_shape)
        num_features = max(self.token_dim // 2, 1)
        self.random_features = self.add_weight(
            name="random_features",
            shape=(num_features, self.token_dim),
            initializer=keras.initializers.Orthogonal(gain=num_features**0.5),
            dtype=precise_dtype(self.variable_dtype),
            trainable=False,
            autocast=False,
        )

    def project_heads(self, x: Any) -> tuple:
        keys, queries, values = ops.split(self.kqv(x), 3, axis=-1)
        return queries, keys, values

    def compute_weights(self, queries: Any, keys: Any) -> Any:
        return performer_weights(*self._to_precise_dtype(queries, keys, self.random_features))

    def apply_attention(self, queries: Any, keys: Any, values: Any) -> Any:
        x = performer_attention(*self._to_precise_dtype(queries, keys, values, self.random_features))
        return ops.cast(x, self.compute_dtype)

    def _to_precise_dtype(self, *tensors):
        return (ops.cast(x, precise_dtype(self.compute_dtype)) for x in tensors)
