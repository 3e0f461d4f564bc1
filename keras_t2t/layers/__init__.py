"""The layers of T2T-ViT. Each one can also be used on its own in any Keras model."""

from keras_t2t.layers.attention import MultiHeadSelfAttention
from keras_t2t.layers.class_token import ClassToken
from keras_t2t.layers.dense_block import DenseBlock
from keras_t2t.layers.drop_path import DropPath
from keras_t2t.layers.encoder_block import EncoderBlock
from keras_t2t.layers.fast_dense import FastDense
from keras_t2t.layers.fast_layer_norm import FastLayerNorm
from keras_t2t.layers.feature_map import FeatureMap
from keras_t2t.layers.ghost_block import GhostBlock
from keras_t2t.layers.image_normalization import ImageNormalization
from keras_t2t.layers.mlp import MLP
from keras_t2t.layers.position_embedding import PositionEmbedding
from keras_t2t.layers.predictions import Predictions
from keras_t2t.layers.resize_like import ResizeLike
from keras_t2t.layers.soft_split import SoftSplit
from keras_t2t.layers.squeeze_excite_block import SqueezeExciteBlock
from keras_t2t.layers.token_performer import TokenPerformer
from keras_t2t.layers.token_transformer import TokenTransformer
from keras_t2t.layers.tokens_to_token import TokensToToken

__all__ = [
    "MLP",
    "ClassToken",
    "DenseBlock",
    "DropPath",
    "EncoderBlock",
    "FastDense",
    "FastLayerNorm",
    "FeatureMap",
    "GhostBlock",
    "ImageNormalization",
    "MultiHeadSelfAttention",
    "PositionEmbedding",
    "Predictions",
    "ResizeLike",
    "SoftSplit",
    "SqueezeExciteBlock",
    "TokenPerformer",
    "TokenTransformer",
    "TokensToToken",
]
