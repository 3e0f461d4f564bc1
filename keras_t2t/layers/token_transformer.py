"""The token transformer: full attention between two soft splits."""

import keras
from keras import ops

from keras_t2t.layers.attention import attention_weights
from keras_t2t.layers.common import inherited
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.token_attention import TokenAttention


@keras.saving.register_keras_serializable("keras_t2t")
class TokenTransformer(TokenAttention):
    """Models the tokens between two soft splits with a transformer layer of one head.

    Paper, section 3.1, "Re-structurization"; `models/token_transformer.py` of the reference. The scores are scaled by the width
    of the *input* tokens, K, to the power -0.5, and the value is the shortcut of the attention.

    Args:
        token_dim: width D of the head and of the tokens that leave.
        drop_rate: dropout of the attention's projection and of the MLP, in training. The published models have none.

    Input:
        (B, N, K), K being the window times the channels of the soft split before.

    Output:
        (B, N, D). Time and memory grow with N * N.
    """

    def build_heads(self, input_shape):
        self.scale = input_shape[-1] ** -0.5
        self.qkv = FastDense(3 * self.token_dim, name="qkv", use_bias=False, **inherited(self))
        self.qkv.build(input_shape)

    def project_heads(self, x):
        return ops.split(self.qkv(x), 3, axis=-1)

    def compute_weights(self, queries, keys):
        return attention_weights(queries, keys, self.scale)

    def apply_attention(self, queries, keys, values):
        return ops.matmul(self.compute_weights(queries, keys), values)
