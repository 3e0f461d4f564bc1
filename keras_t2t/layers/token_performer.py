"""The token performer: attention linear in the number of tokens between two soft splits."""

import keras
from keras import ops

from keras_t2t.layers.common import inherited, precise_dtype
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.token_attention import TokenAttention


def performer_features(x, random_features):
    """Returns positive random features whose inner products approximate exp(x . y).

    Choromanski et al., "Rethinking Attention with Performers", ICLR 2021, lemma 1: exp(x w' - |x|^2 / 2) / sqrt(m).

    Args:
        x: (..., N, D).
        random_features: (m, D).

    Returns:
        (..., N, m).
    """
    half_square = ops.sum(ops.square(x), axis=-1, keepdims=True) / 2  # (..., N, 1)
    projected = ops.matmul(x, ops.transpose(random_features))  # (..., N, m)
    return ops.exp(projected - half_square) / random_features.shape[0] ** 0.5


def performer_weights(queries, keys, random_features):
    """Returns the weights that the performer's attention implies: phi(q) phi(k)' over the sum of each row.

    Args:
        queries: (..., n, D).
        keys: (..., N, D), like the queries in at least float32.
        random_features: (m, D).

    Returns:
        (..., n, N). Rows sum to 1, less what the 1e-8 in the denominator takes.
    """
    queries, keys = (performer_features(x, random_features) for x in (queries, keys))  # (..., n, m), (..., N, m)
    weights = ops.matmul(queries, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    return weights / (ops.sum(weights, axis=-1, keepdims=True) + 1e-8)


def performer_attention(queries, keys, values, random_features):
    """Returns the values mixed by the performer's attention, in time and memory linear in N.

    Args:
        queries, keys, values: (..., N, D), in at least float32: in 16 bits the exponentials overflow and the 1e-8 vanishes.
        random_features: (m, D).

    Returns:
        (..., N, D).
    """
    queries, keys = (performer_features(x, random_features) for x in (queries, keys))  # (..., N, m)
    normalizer = ops.matmul(queries, ops.sum(keys, axis=-2)[..., None])  # (..., N, 1)
    summary = ops.matmul(ops.swapaxes(keys, -1, -2), values)  # (..., m, D)
    return ops.matmul(queries, summary) / (normalizer + 1e-8)


@keras.saving.register_keras_serializable("keras_t2t")
class TokenPerformer(TokenAttention):
    """Models the tokens between two soft splits with performer attention of one head.

    Paper, section 3.1; `models/token_performer.py` of the reference. The fused projection has a bias and the order keys,
    queries, values; the random features are frozen; the value is the shortcut of the attention.

    Args:
        token_dim: width D of the head and of the tokens that leave; there are D // 2 random features.
        drop_rate: dropout of the attention's projection and of the MLP, in training.

    Input:
        (B, N, K), K being the window times the channels of the soft split before.

    Output:
        (B, N, D). Time and memory grow with N; nothing of shape (N, N) exists.
    """

    def __init__(self, token_dim: int = 64, drop_rate: float = 0.1, **kwargs):
        super().__init__(token_dim, drop_rate, **kwargs)

    def build_heads(self, input_shape):
        self.kqv = FastDense(3 * self.token_dim, name="kqv", **inherited(self))
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

    def project_heads(self, x):
        keys, queries, values = ops.split(self.kqv(x), 3, axis=-1)
        return queries, keys, values

    def compute_weights(self, queries, keys):
        return performer_weights(*self.precise(queries, keys, self.random_features))

    def apply_attention(self, queries, keys, values):
        mixed = performer_attention(*self.precise(queries, keys, values, self.random_features))
        return ops.cast(mixed, self.compute_dtype)

    def precise(self, *arguments):
        """Returns the arguments in at least float32."""
        return (ops.cast(x, precise_dtype(self.compute_dtype)) for x in arguments)
