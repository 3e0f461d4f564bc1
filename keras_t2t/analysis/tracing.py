"""Runs a model operation by operation, and exposes the attention weights and the output of every encoder block along the way.

Everything between the blocks runs unchanged. The result must equal the model's own output, which callers verify with
`check_output`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.keras_internals import call_for_inference, run_graph
from keras_t2t.layers import EncoderBlock, TokensToToken
from keras_t2t.layers.common import precise_dtype
from keras_t2t.models.graph import blocks_of, find_head, input_of, tokens_to_token_of


def stage_names(module: TokensToToken) -> list[str]:
    """Returns the names of the stages of the T2T module that have attention."""
    count = 0 if module.token_attention == "convolution" else len(module.soft_splits) - 1
    return [f"stage{i}" for i in range(1, count + 1)]


def run_with_attention(
    model: keras.Model,
    images: Any,
    visit_block: Callable[[EncoderBlock, Any, Any], None] | None = None,
    offsets: Sequence[Any] | None = None,
    logits: bool = False,
) -> Any:
    """Runs a model and computes all tokens in every block, even where the model computes and passes on only the class token.

    Args:
        model: A model in which `blocks_of` finds encoder blocks.
        images: Tensor of shape `(B, H, W, C)`.
        visit_block: Called with each block, its attention weights `(B, H, N, N)` and its output `(B, N, D)`.
        offsets: Tensors to add: one `(B, H, N, N)` per block to its attention weights, then one `(B, N, D)` to the output of
            the last block. Gradients with respect to them are gradients with respect to what they are added to.
        logits: Whether to leave out the activation of the head.

    Returns:
        The output of the model, or the structure of its outputs.

    Raises:
        ValueError: If a block runs twice.
    """
    remaining, visited = list(offsets or ()), set()
    last = blocks_of(model)[-1]
    head = find_head(model) if logits else None
    skipped = {id(operation) for operation in head.layers_after} if head else set()

    def call(operation, *args, **kwargs):
        if isinstance(operation, EncoderBlock):
            if operation in visited:
                raise ValueError(
                    f"Expected a model that runs each block once; received: {model.name!r}, which runs {operation.name!r} "
                    "again. Pass one of the nested models instead"
                )
            visited.add(operation)
            weights, output = _run_block(operation, args[0], remaining.pop(0) if remaining else None)
            if operation is last and remaining:
                output = output + remaining.pop(0)
            if visit_block:
                visit_block(operation, weights, output)
            return output[:, :1] if operation.class_token_only else output
        if id(operation) in skipped:
            return args[0]
        if head and operation is head.dense:
            return _without_activation(operation, args[0])
        return call_for_inference(operation, *args, **kwargs)

    return run_graph(model, images, call)


def size_of_tokenized_images(model: keras.Model, images: Any) -> tuple[int, int]:
    """Returns the height and width of the images that the T2T module takes. A layer before it may have resized `images`."""
    pixels = input_of(tokens_to_token_of(model), model, ops.cast(images[:1], model.inputs[0].dtype))
    return tuple(pixels.shape[1:3])


def _run_block(block, tokens, offset):
    normalized = block.norm1(tokens)
    weights, values = block.attention.compute_weights(normalized, normalized)
    weights = weights if offset is None else weights + offset
    return weights, block.residual_mlp(tokens, block.attention.apply_attention(weights, values))


def _without_activation(dense, features):
    logits = ops.matmul(ops.cast(features, dense.compute_dtype), ops.cast(dense.kernel, dense.compute_dtype))
    return logits + ops.cast(dense.bias, logits.dtype) if dense.use_bias else logits


def check_output(model: keras.Model, images: Any, output: Any) -> None:
    """Checks that a run produced the same output as the model itself.

    Raises:
        ValueError: If the outputs differ, in which case nothing observed during the run can be trusted.
    """
    tolerance = 1e-3 if all(layer.compute_dtype in ("float32", "float64") for layer in blocks_of(model)) else 5e-2
    outputs = zip(keras.tree.flatten(output), keras.tree.flatten(model(images, training=False)), strict=True)
    if not all(_equal(*pair, tolerance) for pair in outputs):
        cause = _first_to_differ(model, images, tolerance)
        raise ValueError(
            f"Expected {model.name!r} to give the same output when run layer by layer; received: a different one"
            + (f", because of the layer {cause!r}. Pass a model without it" if cause else "")
        )


def _equal(received, expected, tolerance):
    received, expected = to_numpy(received), to_numpy(expected)
    limit = tolerance * np.abs(expected).max()
    return received.shape == expected.shape and np.allclose(received, expected, tolerance, limit)


def _first_to_differ(model, images, tolerance):
    """Returns the name of the first layer whose output changes from call to call or when its attention is exposed."""
    names = []

    def call(operation, *args, **kwargs):
        output = call_for_inference(operation, *args, **kwargs)
        again = call_for_inference(operation, *args, **kwargs)
        if isinstance(operation, EncoderBlock):
            _, again = _run_block(operation, args[0], None)
            again = again[:, :1] if operation.class_token_only else again
        pairs = zip(keras.tree.flatten(again), keras.tree.flatten(output), strict=True)
        if not all(_equal(*pair, tolerance) for pair in pairs):
            names.append(operation.name)
        return output

    run_graph(model, images, call)
    return next(iter(names), None)


def batches(model: keras.Model, images: np.ndarray, batch_size: int) -> Iterator[Any]:
    """Splits images into batches.

    Args:
        model: The model that takes the images.
        images: Images of shape `(B, H, W, C)`.
        batch_size: Number of images per batch.

    Yields:
        Tensors of at most `batch_size` images, in the dtype that the model takes.

    Raises:
        ValueError: If the images do not match the model's input shape, if there are none, or if `batch_size` is not positive.
    """
    expected, shape = tuple(model.inputs[0].shape), tuple(np.shape(images))
    if len(shape) != 4 or any(None not in pair and pair[0] != pair[1] for pair in zip(expected, shape, strict=True)):
        raise ValueError(f"Expected images of shape {expected} for {model.name}; received: images of shape {shape}")
    if shape[0] == 0 or batch_size < 1:
        raise ValueError(
            f"Expected at least one image and a positive batch_size; received: {shape[0]} images, batch_size={batch_size}"
        )
    for start in range(0, shape[0], batch_size):
        yield ops.cast(images[start : start + batch_size], model.inputs[0].dtype)


def to_numpy(tensor: Any) -> np.ndarray:
    """Converts a tensor to an array in float32, or in float64 if it has that dtype."""
    return ops.convert_to_numpy(ops.cast(tensor, precise_dtype(tensor.dtype)))
