"""Converts a trained model into a faster one for inference, with fewer and larger operations."""

from typing import Any

import keras
import numpy as np

from keras_t2t.inference.block import InferenceBlock
from keras_t2t.inference.folded import FoldedLayer
from keras_t2t.inference.tokens import InferenceTokensToToken
from keras_t2t.keras_internals import copy_weights, is_graph
from keras_t2t.layers import EncoderBlock, GhostBlock, SqueezeExciteBlock, TokensToToken
from keras_t2t.layers.common import precise_dtype
from keras_t2t.layers.fast_dense import exact_gelu
from keras_t2t.models.graph import layers_of
from keras_t2t.models.parts import BLOCK_CLASSES


def optimize_for_inference(model: keras.Model, dtype: str | None = None) -> keras.Model:
    """Returns a model that computes the same outputs as `model`, faster and with less memory, but cannot be trained.

    - Each soft split, with its LayerNorm and the dense layer after it, becomes a convolution. No windows are stored in memory.
    - The scale and shift of the blocks' LayerNorms, and the scale of the attention, are folded into the weights after them.
    - Dropout and drop path are removed.

    Other layers, such as your own head or blocks of your own, are copied.

    With `dtype="bfloat16"`, the encoder blocks and the T2T module compute in bfloat16 and take about half the space. The
    statistics of norms, the softmax, the performer's features and the first soft split are still computed in float32. Use it
    on GPUs, TPUs, and processors with fast instructions for bfloat16, such as AMX. On others, it can be slower.

    Args:
        model: A functional model with the layers of this package, such as `keras_t2t.T2TViT14()` or a model built on top of it,
            or a model that this function returned.
        dtype: `None` or `"bfloat16"`. With `None`, layers that replace 16-bit layers compute in float32.

    Returns:
        A functional `keras.Model` with its own weights. It takes the same inputs as `model` and returns the same outputs, up to
        rounding. It can be saved as a `.keras` file, which can be loaded after `import keras_t2t`.

    Raises:
        ValueError: If the model is neither functional nor Sequential, if it does not have the layers of a T2T-ViT, or if
            `dtype` is invalid.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> fast = keras_t2t.optimize_for_inference(model)
    >>> images = np.random.uniform(0, 255, (2, 32, 32, 3))
    >>> bool(np.allclose(fast.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-4))
    True
    """
    if dtype not in (None, "bfloat16"):
        raise ValueError(f"Expected dtype to be None or 'bfloat16'; received: dtype={dtype!r}")
    replaceable = (*BLOCK_CLASSES.values(), TokensToToken, FoldedLayer)
    if not is_graph(model) or not any(isinstance(layer, replaceable) for layer in layers_of(model)):
        raise ValueError(
            "Expected a model built by keras_t2t, functional or Sequential, with TokensToToken or EncoderBlock layers; "
            f"received: {model!r}"
        )
    replaced: list[tuple[Any, Any]] = []

    def replace(layer):
        if is_graph(layer):  # a nested model
            return keras.models.clone_model(layer, clone_function=replace)
        new = _replacement(layer, dtype)
        replaced.append((layer, new))
        return new

    optimized = replace(model)
    for old, new in replaced:
        if isinstance(old, keras.Layer) and type(old) is type(new):
            copy_weights(old, new)
    return optimized


def _replacement(layer, dtype):
    if type(layer) is TokensToToken:
        return InferenceTokensToToken.from_arrays(
            fold_tokens(layer),
            token_attention=layer.token_attention,
            soft_splits=layer.soft_splits,
            epsilon=layer.attentions[0].norm1.epsilon if _has_norms(layer) else 0.0,
            return_stages=layer.return_stages,
            name=layer.name,
            dtype=dtype or precise_dtype(layer.variable_dtype),
        )
    if type(layer) in BLOCK_CLASSES.values():  # subclasses of them may compute something else, so they are copied
        return InferenceBlock.from_arrays(
            fold_block(layer),
            num_heads=layer.num_heads,
            epsilon=layer.norm1.epsilon,
            class_token_only=layer.class_token_only,
            name=layer.name,
            dtype=dtype or precise_dtype(layer.variable_dtype),
        )
    if isinstance(layer, keras.layers.Dropout):
        return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
    changed = {"dtype": dtype or precise_dtype(layer.variable_dtype)} if isinstance(layer, FoldedLayer) else {}
    copy = layer.__class__.from_config({**layer.get_config(), **changed})
    if getattr(copy, "activation", None) is keras.activations.gelu:
        copy.activation = exact_gelu
    return copy


def _has_norms(layer):
    return layer.token_attention != "convolution" and bool(layer.attentions)


def fold_tokens(layer: TokensToToken) -> dict[str, np.ndarray]:
    """Returns the weights of the `InferenceTokensToToken` that replaces `layer`, by name."""
    arrays: dict[str, np.ndarray] = {}
    for i, (split, attention) in enumerate(zip(layer.splits, layer.attentions, strict=False), 1):
        name = f"split{i}"
        if layer.token_attention == "convolution":
            arrays |= _convolution(name, split, _array(attention.kernel), _array(attention.bias))
            continue
        if layer.token_attention == "performer":
            kernel, bias = _fold(attention.norm1, attention.kqv)
            kernel, bias = (_swap_keys_and_queries(x) for x in (kernel, bias))
            arrays[f"{name}_random_features"] = _array(attention.random_features).T
        else:
            kernel, bias = _fold(attention.norm1, attention.qkv)
            kernel, bias = (_scale_first(x, attention.scale, 3) for x in (kernel, bias))
        arrays |= _convolution(name, split, kernel - kernel.mean(axis=0), bias)
        arrays |= _pair(f"{name}_projection", *_weights(attention.projection))
        arrays |= _pair(f"{name}_fc1", *_fold(attention.norm2, attention.mlp.fc1))
        arrays |= _pair(f"{name}_fc2", *_weights(attention.mlp.fc2))
    return arrays | _convolution(f"split{len(layer.splits)}", layer.splits[-1], *_weights(layer.projection))


def fold_block(block: EncoderBlock) -> dict[str, np.ndarray]:
    """Returns the weights of the `InferenceBlock` that replaces `block`, by name."""
    attention, mlp = block.attention, block.mlp
    is_ghost, has_gate = isinstance(block, GhostBlock), isinstance(block, SqueezeExciteBlock)
    ghosts = [attention.query, attention.key, attention.value] if is_ghost else []
    projections = [ghost.primary for ghost in ghosts] or [attention.qkv]
    kernel, bias = (np.concatenate(x, axis=-1) for x in zip(*(_fold(block.norm1, x) for x in projections), strict=True))
    head_dim = _array(attention.projection.kernel).shape[0] // block.num_heads
    kernel, bias = (_scale_first(x, head_dim**-0.5, 3) for x in (kernel, bias))
    arrays: dict[str, np.ndarray] = {}
    width = bias.size // 3  # of the queries, the keys or the values
    ranges = {"qkv": (0, 3)} if has_gate or not block.class_token_only else {"query": (0, 1), "key_value": (1, 3)}
    for name, (start, end) in ranges.items():
        arrays |= _pair(name, kernel[:, start * width : end * width], bias[start * width : end * width])
        if is_ghost:
            arrays[f"{name}_scale"] = np.stack([_array(ghost.scale) for ghost in ghosts[start:end]])
    arrays |= _pair("projection", *_weights(attention.projection))
    arrays |= _pair("fc1", *_fold(block.norm2, mlp.fc1)) | _pair("fc2", *_weights(mlp.fc2))
    if is_ghost:
        arrays |= {"scale1": _array(mlp.scale1), "scale2": _array(mlp.scale2)}
    if has_gate:
        arrays |= {"squeeze_kernel": _array(attention.squeeze.kernel), "excite_kernel": _array(attention.excite.kernel)}
    if hasattr(block, "growth_projection"):
        arrays |= _pair("growth", *_weights(block.growth_projection))
    return arrays


def _array(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")


def _weights(dense):
    """Returns the kernel and the bias of a dense layer, or zeros if it has no bias."""
    kernel = _array(dense.kernel)
    return kernel, _array(dense.bias) if dense.use_bias else np.zeros(kernel.shape[1])


def _fold(norm, dense):
    """Returns the kernel and the bias that replace a LayerNorm and a dense layer after standardization."""
    kernel, bias = _weights(dense)
    return _array(norm.gamma)[:, None] * kernel, _array(norm.beta) @ kernel + bias


def _pair(name, kernel, bias):
    return {f"{name}_kernel": kernel, f"{name}_bias": bias}


def _convolution(name, split, kernel, bias):
    size = split.kernel_size
    return _pair(name, kernel.reshape(size, size, -1, kernel.shape[1]), bias)


def _scale_first(x, scale, parts):
    """Multiplies the first of `parts` equal parts of the last axis by `scale`."""
    factor = np.ones(x.shape[-1])
    factor[: x.shape[-1] // parts] = scale
    return x * factor


def _swap_keys_and_queries(x):
    keys, queries, values = np.split(x, 3, axis=-1)
    return np.concatenate([queries, keys, values], axis=-1)
