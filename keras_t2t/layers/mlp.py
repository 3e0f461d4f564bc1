"""The two-layer perceptron of a transformer block."""

import keras

from keras_t2t.layers.common import inherited
from keras_t2t.layers.fast_dense import FastDense


@keras.saving.register_keras_serializable("keras_t2t")
class MLP(keras.Layer):
    """Dense, exact GELU, dense: acts on each token alone and keeps its width. `Mlp` in `models/transformer_block.py`.

    Args:
        hidden_dim: width between the two dense layers.
        drop_rate: dropout after each of them, in training.

    Input and output:
        (..., D), the same shape.
    """

    def __init__(self, hidden_dim: int, drop_rate: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.drop_rate = drop_rate

    def build(self, input_shape):
        width = input_shape[-1]
        self.fc1 = FastDense(self.hidden_dim, name="fc1", activation="gelu", **inherited(self))
        self.fc1.build(input_shape)
        self.fc2 = FastDense(width, name="fc2", **inherited(self))
        self.fc2.build((*input_shape[:-1], self.hidden_dim))
        self.dropout = keras.layers.Dropout(self.drop_rate, **inherited(self))

    def call(self, x):
        x = self.dropout(self.fc1(x))  # (..., hidden_dim)
        return self.dropout(self.fc2(x))  # (..., D)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "hidden_dim": self.hidden_dim, "drop_rate": self.drop_rate}
