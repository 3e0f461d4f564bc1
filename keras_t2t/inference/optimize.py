"""A model for inference from a trained one: the same function, folded into fewer and larger operations."""

import keras
import numpy as np

from keras_t2t.inference.block import InferenceBlock
from keras_t2t.inference.folded import exact_gelu
from keras_t2t.inference.tokens import InferenceTokensToToken
from keras_t2t.layers import EncoderBlock, GhostBlock, SqueezeExciteBlock, TokensToToken
from keras_t2t.layers.common import precise_dtype
from keras_t2t.models import config_of


def optimize_for_inference(model: keras.Model) -> keras.Model:
    """Returns a model that computes the same as `model`, faster and in less memory, and cannot be trained.

    - A soft split, its LayerNorm and the dense layer after it become a convolution: no window is laid out in memory.
    - Scale and shift of the blocks' LayerNorms, and the scale of the attention, go into the weights that follow.
    - Dropout and drop path are gone.

    All else, such as a head of the user's own, is copied. What replaces layers of 16 bits computes in float32.

    Args:
        model: any functional model with the layers of this package, such as those of the constructors.

    Returns:
        A functional `keras.Model` with weights of its own, the same inputs and outputs, equal up to rounding. It can be saved
        as `.keras`, and loaded after `import keras_t2t`.

    Raises:
        ValueError: if the model has no layers of this package.
    """
    config_of(model)  # raises for models of others
    pairs = []

    def replace(layer):
        new = _replacement(layer)
        pairs.append((layer, new))
        return new

    optimized = keras.models.clone_model(model, clone_function=replace)
    for old, new in pairs:
        if isinstance(old, keras.Layer) and type(old) is type(new):
            new.set_weights(old.get_weights())
    return optimized


def _replacement(layer):
    if isinstance(layer, TokensToToken):
        return InferenceTokensToToken.from_arrays(
            fold_tokens(layer),
            token_attention=layer.token_attention,
            soft_splits=layer.soft_splits,
            epsilon=layer.attentions[0].norm1.epsilon if _has_norms(layer) else 0.0,
            name=layer.name,
            dtype=precise_dtype(layer.variable_dtype),
        )
    if isinstance(layer, EncoderBlock):
        return InferenceBlock.from_arrays(
            fold_block(layer),
            num_heads=layer.num_heads,
            epsilon=layer.norm1.epsilon,
            class_token_only=layer.class_token_only,
            name=layer.name,
            dtype=precise_dtype(layer.variable_dtype),
        )
    if isinstance(layer, keras.layers.Dropout):
        return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
    copy = layer.__class__.from_config(layer.get_config())
    if getattr(copy, "activation", None) is keras.activations.gelu:
        copy.activation = exact_gelu
    return copy


def _has_norms(layer):
    return layer.token_attention != "convolution" and bool(layer.attentions)


def fold_tokens(layer: TokensToToken) -> dict[str, np.ndarray]:
    """Returns the weights of the `InferenceTokensToToken` that does the work of `layer`."""
    arrays = {}
    for i, (split, attention) in enumerate(zip(layer.splits, layer.attentions, strict=False), 1):
        name = f"split{i}"
        if layer.token_attention == "convolution":
            arrays |= _as_convolution(name, split, _array(attention.kernel), _array(attention.bias))
            continue
        if layer.token_attention == "performer":
            kernel, bias = _fold(attention.norm1, attention.kqv)
            kernel, bias = (_swap_keys_and_queries(x) for x in (kernel, bias))
            arrays[f"{name}_random_features"] = _array(attention.random_features).T
        else:
            kernel, bias = _fold(attention.norm1, attention.qkv)
            kernel, bias = (_scale_first(x, attention.scale, 3) for x in (kernel, bias))
        arrays |= _as_convolution(name, split, kernel - kernel.mean(axis=0), bias)
        arrays |= _pair(f"{name}_projection", *_weights(attention.projection))
        arrays |= _pair(f"{name}_fc1", *_fold(attention.norm2, attention.mlp.fc1))
        arrays |= _pair(f"{name}_fc2", *_weights(attention.mlp.fc2))
    return arrays | _as_convolution(f"split{len(layer.splits)}", layer.splits[-1], *_weights(layer.projection))


def fold_block(block: EncoderBlock) -> dict[str, np.ndarray]:
    """Returns the weights of the `InferenceBlock` that does the work of `block`."""
    attention, mlp = block.attention, block.mlp
    ghost, gated = isinstance(block, GhostBlock), isinstance(block, SqueezeExciteBlock)
    parts = [part.primary for part in (attention.query, attention.key, attention.value)] if ghost else [attention.qkv]
    kernel, bias = (np.concatenate(x, axis=-1) for x in zip(*(_fold(block.norm1, part) for part in parts), strict=True))
    head_dim = _array(attention.projection.kernel).shape[0] // block.num_heads
    kernel, bias = (_scale_first(x, head_dim**-0.5, 3) for x in (kernel, bias))
    scales = np.stack([_array(part.scale) for part in (attention.query, attention.key, attention.value)]) if ghost else None
    arrays = {}
    third = bias.size // 3
    ranges = {"qkv": (0, 3)} if gated or not block.class_token_only else {"query": (0, 1), "key_value": (1, 3)}
    for name, (first, end) in ranges.items():
        arrays |= _pair(name, kernel[:, first * third : end * third], bias[first * third : end * third])
        if ghost:
            arrays[f"{name}_scale"] = scales[first:end]
    arrays |= _pair("projection", *_weights(attention.projection))
    arrays |= _pair("fc1", *_fold(block.norm2, mlp.fc1)) | _pair("fc2", *_weights(mlp.fc2))
    if ghost:
        arrays |= {"scale1": _array(mlp.scale1), "scale2": _array(mlp.scale2)}
    if gated:
        arrays |= {"squeeze_kernel": _array(attention.squeeze.kernel), "excite_kernel": _array(attention.excite.kernel)}
    if hasattr(block, "growth_projection"):
        arrays |= _pair("growth", *_weights(block.growth_projection))
    return arrays


def _array(variable):
    return variable.numpy().astype("float64")


def _weights(dense):
    """Kernel and bias of a dense layer, zeros if it has no bias."""
    kernel = _array(dense.kernel)
    return kernel, _array(dense.bias) if dense.use_bias else np.zeros(kernel.shape[1])


def _fold(norm, dense):
    """Kernel and bias that do to standardized tokens what a LayerNorm and a dense layer do."""
    kernel, bias = _weights(dense)
    return _array(norm.gamma)[:, None] * kernel, _array(norm.beta) @ kernel + bias


def _pair(name, kernel, bias):
    return {f"{name}_kernel": kernel, f"{name}_bias": bias}


def _as_convolution(name, split, kernel, bias):
    side = split.kernel_size
    return _pair(name, kernel.reshape(side, side, -1, kernel.shape[1]), bias)


def _scale_first(x, scale, parts):
    """Multiplies the first of `parts` equal parts of the last axis."""
    factor = np.ones(x.shape[-1])
    factor[: x.shape[-1] // parts] = scale
    return x * factor


def _swap_keys_and_queries(x):
    keys, queries, values = np.split(x, 3, axis=-1)
    return np.concatenate([queries, keys, values], axis=-1)
