"""Drop path: stochastic depth for residual branches."""

import keras
from keras import ops

from keras_t2t.layers.common import check_rate


@keras.saving.register_keras_serializable("keras_t2t")
class DropPath(keras.Layer):
    """Zeroes its whole input for a random share of the samples in training, and scales the others so that the mean stays.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Args:
        rate: probability of dropping a sample, in [0, 1).
        seed: integer seed, or None for a random one.

    Input and output:
        (B, ...), the same shape; unchanged outside training.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        check_rate(self, "rate", rate)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=None):
        if not training or self.rate == 0:
            return x
        one_per_sample = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return keras.random.dropout(x, self.rate, noise_shape=one_per_sample, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
