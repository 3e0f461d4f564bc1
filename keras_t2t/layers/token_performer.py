"""The token performer: attention between two soft splits whose cost is linear in the number of tokens."""

import math
from typing import Any

import keras
from keras import ops

from keras_t2t.configs import random_feature_count
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

    With positive features, performer attention is two softmaxes. Each random feature attends to all tokens, and each token
    attends to the m features, weighted by their total over the tokens. Written this way, no exponential overflows, and no sum
    is small enough to become a zero divisor, even if a converter quantizes the result to 8 bits. The 1e-8 that the reference
    implementation adds to the divisor becomes an additional feature whose value is zero.

    Args:
        queries: Tensor `(..., N, D)`, in at least float32.
        keys: Tensor `(..., N, D)`, in at least float32.
        values: Tensor `(..., N, D)`, in at least float32.
        random_features: Tensor `(m, D)`.

    Returns:
        Tensor `(..., N, D)`.
    """
    num_features = random_features.shape[0]
    query_square, key_square = (ops.sum(ops.square(x), axis=-1) / 2 for x in (queries, keys))  # (..., N)
    scores = ops.matmul(random_features, ops.swapaxes(keys, -1, -2)) - key_square[..., None, :]  # (..., m, N)
    summary = ops.matmul(ops.softmax(scores, axis=-1), values)  # (..., m, D)
    totals = ops.logsumexp(scores, axis=-1)[..., None, :]  # (..., 1, m)
    scores = ops.matmul(queries, ops.transpose(random_features)) + totals  # (..., N, m)
    epsilon = query_square[..., None] + math.log(1e-8 * num_features)  # (..., N, 1)
    weights = ops.softmax(ops.concatenate([scores, epsilon], axis=-1), axis=-1)[..., :num_features]
    return ops.matmul(weights, summary)


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
        num_features = random_feature_count(self.token_dim)
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
