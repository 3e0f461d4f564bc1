"""Drop path, also known as stochastic depth, for residual branches."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import check_rate


@keras.saving.register_keras_serializable("keras_t2t")
class DropPath(keras.Layer):
    """Sets randomly chosen samples of a batch to zero during training, and scales the others to keep the expected value.

    See Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Args:
        rate: Probability of dropping a sample, in [0, 1).
        seed: Integer seed, or `None` for a random seed.

    Call arguments:
        x: Tensor of any shape `(B, ...)`.
        training: Whether to drop samples. Otherwise, the input is returned unchanged.

    Output shape:
        Same as the input shape.

    Raises:
        ValueError: If `rate` is not in [0, 1).

    Example:

    >>> x = np.ones((1000, 3))
    >>> y = keras.ops.convert_to_numpy(keras_t2t.layers.DropPath(0.5)(x, training=True))
    >>> np.unique(y).tolist()
    [0.0, 2.0]
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        check_rate(self, "rate", rate)
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return x
        noise_shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)  # one value for each sample
        return keras.random.dropout(x, self.rate, noise_shape=noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
