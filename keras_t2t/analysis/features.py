"""What a model makes of an image at every scale: maps for detection and segmentation, and to look at."""

from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np

from keras_t2t.analysis.model_parts import batches, split_model, to_numpy
from keras_t2t.layers import EncoderBlock, FeatureMap, TokensToToken
from keras_t2t.models import parts


@keras.saving.register_keras_serializable("keras_t2t")
class TokenPyramid(TokensToToken):
    """A `TokensToToken` that returns the map of every stage. The same arguments and weights.

    Input:
        (B, H, W, C).

    Output:
        A list of maps: (B, h, w, token_dim) for every stage with an attention, then the tokens (B, h, w, embed_dim).
    """

    def call(self, images):
        return self.stage_maps(images)

    def compute_output_shape(self, input_shape):
        maps, shape = [], input_shape
        for split in self.splits[:-1]:
            shape = (*split.compute_output_shape(shape)[:3], self.token_dim)
            maps.append(shape)
        return [*maps, super().compute_output_shape(input_shape)]


def feature_pyramid(model: keras.Model, blocks: Sequence[str] = (), name: str = "feature_pyramid") -> keras.Model:
    """Returns a model of the maps that lie within another, for images of any size.

    The published variants give maps at strides of 4, 8 and 16 pixels. A plain ViT has a single split and gives the last alone.

    Args:
        model: any model of this package. Its weights are copied: training one model does not change the other.
        blocks: names of blocks, such as `"block3"`, whose results are wanted, too.
        name: of the new model.

    Returns:
        A functional `keras.Model` from images (B, H, W, C), in the range that `model` takes, to a dictionary of maps:
        `"stage1"`, `"stage2"`, ... (B, h, w, token_dim), the stages of the T2T module but the last; `"final"` (B, h, w, D), the
        normalized tokens after the last block; and the blocks asked for (B, h, w, width), not normalized. Of densely connected
        blocks every one has another width. The model can be saved and loaded.

    Raises:
        ValueError: if `model` is not of this package or does not have the blocks.
    """
    model_parts = split_model(model)
    if not set(blocks) <= set(model_parts.block_names):
        raise ValueError(f"Expected some of the blocks {model_parts.block_names}; received: blocks={blocks}")
    backbone = keras.Model(model.input, model_parts.norm.output)
    images = keras.Input((None, None, model.input_shape[-1]), dtype=model.input.dtype, name=parts.IMAGES)
    maps = {}

    def call(layer, *args, **kwargs):
        result = layer(*args, **kwargs)
        if isinstance(layer, TokenPyramid):
            *stages, result = result
            maps.update({f"stage{i}": stage for i, stage in enumerate(stages, 1)})
            maps["grid"] = result
        elif layer.name in blocks or layer.name == model_parts.norm.name:
            key = layer.name if layer.name in blocks else "final"
            maps[key] = FeatureMap(name=f"{key}_map", dtype=layer.dtype_policy.name)(result, maps["grid"])
        return result

    clone = keras.models.clone_model(backbone, input_tensors=images, call_function=call, clone_function=_copy)
    for layer in backbone.layers:
        clone.get_layer(layer.name).set_weights(layer.get_weights())
    del maps["grid"]
    return keras.Model(images, maps, name=name)


def _copy(layer):
    """Returns a new layer like `layer` that hides nothing: every stage, every token."""
    if isinstance(layer, TokensToToken):
        return TokenPyramid.from_config(layer.get_config())
    if isinstance(layer, EncoderBlock):
        return type(layer).from_config({**layer.get_config(), "class_token_only": False})
    return type(layer).from_config(layer.get_config())


def feature_maps(model: keras.Model, images, blocks: Sequence[str] = ("block0",), batch_size: int = 8) -> dict[str, np.ndarray]:
    """Returns the maps of `feature_pyramid(model, blocks)` as arrays (B, h, w, channels) of at least float32, by name."""
    pyramid, found = feature_pyramid(model, blocks), defaultdict(list)
    for batch in batches(pyramid, images, batch_size):
        for name, values in pyramid(batch, training=False).items():
            found[name].append(to_numpy(values))
    return {name: np.concatenate(values) for name, values in found.items()}
