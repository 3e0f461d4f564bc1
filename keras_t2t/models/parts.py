"""The parts of a model: the names of its layers, and functions that read the properties of a model from its layers.

Layer names are not spelled out in any other file.
"""

import dataclasses
from collections.abc import Sequence

import keras

from keras_t2t.configs import T2TConfig
from keras_t2t.keras_internals import inputs_of, producer
from keras_t2t.layers import (
    DenseBlock,
    EncoderBlock,
    FastDense,
    GhostBlock,
    ImageNormalization,
    PositionEmbedding,
    Predictions,
    SqueezeExciteBlock,
    TokensToToken,
)
from keras_t2t.models.graph import find_head, image_input, input_of, is_graph, layers_of, tokens_to_token_of
from keras_t2t.preprocessing import ModelSpec, Preprocessing

IMAGES = "images"
NORMALIZATION = "normalization"
TOKENS_TO_TOKEN = "tokens_to_token"
CLASS_TOKEN = "class_token"
POSITION_EMBEDDING = "position_embedding"
DROPOUT = "dropout"
NORM = "norm"
FEATURE_MAP = "feature_map"
AVG_POOL = "avg_pool"
MAX_POOL = "max_pool"
TOKEN_POOL = "token_pool"
HEAD = "head"
PREDICTIONS = "predictions"
BLOCK = "block"
"""Prefix of the names of encoder blocks."""
TRANSITION = "transition"
"""Prefix of the names of transitions after groups of densely connected blocks."""

BLOCK_CLASSES = {
    "standard": EncoderBlock,
    "squeeze_excite": SqueezeExciteBlock,
    "ghost": GhostBlock,
    "dense": DenseBlock,
}
"""The block class for each value of `T2TConfig.block`."""
WHITE = 255
NOT_DECAYED = r"(^|/)(bias|gamma|beta|token|table|scale\d?)$"
"""Regular expression for the paths of weights that are excluded from weight decay."""


def block_kind(block: EncoderBlock) -> str:
    """Returns the value of `T2TConfig.block` that an encoder block belongs to.

    Raises:
        ValueError: If its class is not one of `BLOCK_CLASSES`.
    """
    for kind, block_class in BLOCK_CLASSES.items():
        if type(block) is block_class:
            return kind
    raise ValueError(
        f"Expected a block of one of the classes {[c.__name__ for c in BLOCK_CLASSES.values()]}; received: {block!r}"
    )


def block_name(index: int) -> str:
    """Returns the name of the encoder block with the given index, starting at 0."""
    return f"{BLOCK}{index}"


def transition_name(index: int) -> str:
    """Returns the name of the transition after the group of blocks with the given index, starting at 0."""
    return f"{TRANSITION}{index}"


def is_transition(layer: keras.Layer) -> bool:
    """Returns whether a layer is the transition after a group of densely connected blocks: a dense layer after a block."""
    return isinstance(layer, FastDense) and any(isinstance(producer(x)[0], EncoderBlock) for x in inputs_of(layer))


def head_of(model: keras.Model) -> keras.Layer | None:
    """Returns the dense layer that computes the logits, or `None` if the model has no head."""
    head = find_head(model)
    return None if head is None else head.dense


def preprocessing_of(model: keras.Model) -> Preprocessing:
    """Returns how images must be prepared for a model.

    Args:
        model: A model built by this package, even if it has since been saved, cloned, optimized or given another head. A model
            that contains such a model as a layer also works.

    Returns:
        The `Preprocessing`. Its `image_size` is the size of the model's inputs, if they have a fixed size.

    Raises:
        ValueError: If the model was not built by this package, or does not take images only.
    """
    preprocessing = _normalization(model).preprocessing
    _, *size, _ = image_input(model).shape
    return preprocessing if None in size else dataclasses.replace(preprocessing, image_size=tuple(size))


def normalizes(model: keras.Model) -> bool:
    """Returns whether a model normalizes its images itself and therefore expects pixels in [0, 255].

    That is also true for a model built with `include_preprocessing=False` that has another layer in front, such as
    `keras.layers.Rescaling`, to scale its images.

    Raises:
        ValueError: If the model was not built by this package, or if it scales its images twice.
    """
    layer = _normalization(model)
    scaled = is_graph(model) and _scales_before(layer, model)
    if scaled and layer.enabled:
        raise ValueError(
            f"Expected a model that scales its images once. The images of {model.name!r} are scaled before they reach "
            f"{layer!r}, which normalizes them. Leave out what scales them, such as keras.layers.Rescaling, or build the model "
            "with `include_preprocessing=False`"
        )
    return layer.enabled or scaled


def _scales_before(layer, model):
    """Returns whether a white image is not white anymore when it reaches a layer."""
    image = image_input(model)
    sides = (own or known for own, known in zip(image.shape[1:3], layer.preprocessing.image_size, strict=True))
    white = keras.ops.full((1, *sides, image.shape[-1]), WHITE, image.dtype)
    received = input_of(layer, model, white)
    return received is not None and abs(float(keras.ops.max(received)) - WHITE) > 1


def _normalization(model):
    layer = next((layer for layer in layers_of(model) if isinstance(layer, ImageNormalization)), None)
    if layer is None:
        raise ValueError(
            f"Expected a model built by keras_t2t, which has a layer ImageNormalization; received: {model!r}. To use other "
            "models, add keras_t2t.layers.ImageNormalization(preprocessing) right after their inputs"
        )
    return layer


def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """Returns the class names of a classifier or segmenter in the order of its outputs, or `None` if it does not store any.

    These are the names of the model's own head. Those of a nested classifier below another head do not count.
    """
    head = _any_head(model)
    after = () if head is None else head.layers_after
    return next((layer.labels for layer in after if isinstance(layer, Predictions) and layer.labels), None)


def spec_of(model: keras.Model) -> ModelSpec:
    """Returns a description of what a model expects and what it returns.

    Raises:
        ValueError: If the model was not built by this package.
    """
    return ModelSpec(
        preprocessing=preprocessing_of(model),
        normalizes=normalizes(model),
        output=_output_kind(_any_head(model)),
        labels=labels_of(model),
    )


def _any_head(model):
    """Returns the head of a classifier or a segmenter, or `None`."""
    return find_head(model) or find_head(model, per_pixel=True)


def _output_kind(head):
    """Returns `ModelSpec.output` for a head, which depends on its last activation."""
    if head is None:
        return "features"
    last = head.activations[-1] if head.activations else None
    return {None: "logits", "log_softmax": "logits", "softmax": "probabilities"}.get(last, "scores")


def config_of(model: keras.Model) -> T2TConfig:
    """Returns the configuration of a model. It is read from the layers, so this also works for a model loaded from a file.

    Args:
        model: A model built by this package, or a model that contains one as a layer.

    Raises:
        ValueError: If the model does not have the layers of a T2T-ViT, or those of several.
    """
    layers = list(layers_of(model)) if isinstance(model, keras.Model) else []
    kinds = (TokensToToken, PositionEmbedding, EncoderBlock)
    modules, embeddings, blocks = ([layer for layer in layers if isinstance(layer, kind)] for kind in kinds)
    if not (modules and embeddings and blocks):
        raise ValueError(
            "Expected a model built by keras_t2t, with the layers TokensToToken, PositionEmbedding and EncoderBlock. If this "
            f"model was made by optimize_for_inference, pass the original model instead. Received: {model!r}"
        )
    tokens, positions, last = tokens_to_token_of(model), embeddings[0], blocks[-1]
    block = block_kind(last)
    return T2TConfig(
        token_attention=tokens.token_attention,
        token_dim=tokens.token_dim,
        soft_splits=tokens.soft_splits,
        embed_dim=tokens.embed_dim,
        depth=_group_depths(layers) if block == "dense" else len(blocks),
        num_heads=last.num_heads,
        mlp_ratio=last.mlp_ratio,
        block=block,
        growth=getattr(last, "growth", None),
        qkv_bias=last.qkv_bias,
        learned_positions=positions.learned,
        norm_epsilon=last.norm_epsilon,
        token_drop_rate=tokens.drop_rate,
        drop_rate=last.drop_rate,
        attention_drop_rate=last.attention_drop_rate,
        drop_path_rate=last.drop_path_rate,
    )


def _group_depths(layers: Sequence[keras.Layer]) -> tuple[int, ...]:
    """Counts the blocks between the transitions."""
    depths = [0]
    for layer in layers:
        if isinstance(layer, EncoderBlock):
            depths[-1] += 1
        elif is_transition(layer):
            depths.append(0)
    return tuple(depths)
