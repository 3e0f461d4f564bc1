"""A model taken apart: its layers called one after the other, so that what lies between them can be seen."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_t2t.configs import T2TConfig
from keras_t2t.layers import EncoderBlock, TokensToToken
from keras_t2t.models import config_of, parts


@dataclasses.dataclass(frozen=True)
class ModelParts:
    """The parts of a model, in the order in which an image passes them.

    Attributes:
        config: the configuration of the model.
        entry: model from images (B, H, W, C) to what enters the T2T module (B, H, W, C) and the first block (B, 1 + h * w, D).
        tokens_to_token: the T2T module.
        encoder: the blocks, and the transitions between groups of densely connected ones.
        norm: the last norm.
        classifier: model from the class token that enters the last norm (B, 1, D) to logits (B, classes); None without a head
            on the class token.
    """

    config: T2TConfig
    entry: keras.Model
    tokens_to_token: TokensToToken
    encoder: tuple[keras.Layer, ...]
    norm: keras.Layer
    classifier: keras.Model | None

    @property
    def block_names(self) -> list[str]:
        return [layer.name for layer in self.encoder if isinstance(layer, EncoderBlock)]

    @property
    def stage_names(self) -> list[str]:
        """The stages of the T2T module that have an attention."""
        count = 0 if self.config.token_attention == "convolution" else len(self.config.soft_splits) - 1
        return [f"stage{i}" for i in range(1, count + 1)]


def split_model(model: keras.Model) -> ModelParts:
    """Finds the parts of a model of this package, whether it was built, loaded from a file, cloned or given another head.

    Raises:
        ValueError: if it is none. A model that is a layer of another one has to be passed by itself.
    """
    config = config_of(model)
    layers = {layer.name: layer for layer in model.layers}
    tokens_to_token = next(layer for layer in model.layers if isinstance(layer, TokensToToken))
    encoder = [layer for layer in model.layers if isinstance(layer, EncoderBlock) or parts.is_transition(layer)]
    entry = keras.Model(model.input, [tokens_to_token.input, encoder[0].input])
    norm, head = layers[parts.NORM], parts.head_of(model)
    on_class_token = head is not None and norm.input.shape[1] == 1
    classifier = keras.Model(norm.input, head.output) if on_class_token else None
    return ModelParts(config, entry, tokens_to_token, tuple(encoder), norm, classifier)


def run_encoder(model_parts: ModelParts, tokens, offsets=None):
    """Runs the blocks on the tokens (B, N, D) that enter the first, all tokens through the last, too.

    Args:
        model_parts: the parts of a model.
        tokens: (B, N, D).
        offsets: None, or tensors (B, H, N, N), one for each block, that are added to its attention weights: for gradients.

    Yields:
        For each block its attention weights (B, H, N, N) and its result (B, N, D).
    """
    offsets = iter(offsets or ())
    for layer in model_parts.encoder:
        if isinstance(layer, EncoderBlock):
            normal = layer.norm1(tokens)
            weights, values = layer.attention.compute_weights(normal, normal)
            offset = next(offsets, None)
            weights = weights if offset is None else weights + offset
            tokens = layer.residual_mlp(tokens, layer.attention.apply_attention(weights, values))
            yield weights, tokens
        else:
            tokens = layer(tokens)


def batches(model: keras.Model, images, batch_size: int):
    """Yields images (B, H, W, C) as tensors of at most `batch_size` of them.

    Raises:
        ValueError: if they are not what the model takes.
    """
    expected = model.input_shape
    shape = tuple(np.shape(images))
    if len(shape) != 4 or any(None not in (want, size) and want != size for want, size in zip(expected, shape, strict=True)):
        raise ValueError(f"Expected images of shape {expected} for {model.name}, one or more; received: {shape}")
    if shape[0] == 0 or batch_size < 1:
        raise ValueError(f"Expected one image or more and a positive batch_size; received: {shape[0]} and {batch_size}")
    for start in range(0, shape[0], batch_size):
        yield ops.cast(images[start : start + batch_size], model.input.dtype)


def to_numpy(tensor) -> np.ndarray:
    """Returns a tensor as an array of at least float32."""
    return ops.convert_to_numpy(ops.cast(tensor, keras.backend.result_type(tensor.dtype, "float32")))
