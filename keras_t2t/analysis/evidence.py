"""Class evidence: the parts of an image that support a class."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.analysis.tracing import batches, check_output, run_with_attention, size_of_tokenized_images, to_numpy
from keras_t2t.configs import token_grid
from keras_t2t.models.graph import find_head, tokens_to_token_of


def class_evidence(
    model: keras.Model, images: np.ndarray, classes: Sequence[int] | np.ndarray | None = None, batch_size: int = 4
) -> np.ndarray:
    """Returns the relevance of each token for a class: attention weighted by the gradient of the class logit.

    Source: Chefer, Gur and Wolf, "Generic Attention-Model Explainability", ICCV 2021. The relevance R starts as the identity.
    Each block adds A R to it, where A is the positive part of attention times its gradient, averaged over the heads. Relevance
    is propagated through the encoder blocks only. Whatever the T2T module mixes before them is attributed to the token it ends
    up in.

    Args:
        model: A classifier built by `keras_t2t`, with its own head or yours.
        images: Images of shape `(B, H, W, C)`, in the value range the model expects.
        classes: Class indices of shape `(B,)`, one for each image. `None` uses the top class of each image.
        batch_size: Number of images per forward pass. The attention weights of all blocks and their gradients are kept in
            memory for every image in a batch.

    Returns:
        An array of shape `(B, h, w)`: the relevance of each token of the grid to what the head reads, which is the class token
        or the mean of the pooled tokens. Values are nonnegative, and their scale is arbitrary.

    Raises:
        ValueError: If the model is not a classifier, if `classes` is not one valid index per image, or if the Keras backend
            does not support gradients.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> images = np.random.uniform(0, 255, (2, 32, 32, 3))
    >>> keras_t2t.analysis.class_evidence(model, images, classes=[7, 3]).shape
    (2, 8, 8)
    """
    head, soft_splits = find_head(model), tokens_to_token_of(model).soft_splits
    if head is None:
        raise ValueError(f"Expected a classifier: a model that ends in a dense layer; received: model={model.name!r}")
    count = model.output_shape[-1]
    if classes is not None:
        classes = np.asarray(classes)
        is_integer = np.issubdtype(classes.dtype, np.integer)
        if not is_integer or classes.shape != (len(images),) or not ((classes >= 0) & (classes < count)).all():
            raise ValueError(f"Expected {len(images)} class indices from 0 to {count - 1}; received: classes={classes}")
    results, start = [], 0
    for batch in batches(model, images, batch_size):
        batch_classes = None if classes is None else classes[start : start + batch_size]
        weights, gradients, token_gradients = attention_gradients(model, batch, batch_classes)
        is_read = np.abs(token_gradients).max(2, keepdims=True) > 0  # the class token, or the tokens that are pooled
        relevances = (relevance(weights, gradients) * is_read).sum(1) / np.maximum(is_read.sum(1), 1)
        grid = token_grid(soft_splits, *size_of_tokenized_images(model, batch))
        results.append(relevances[:, 1:].reshape(len(relevances), *grid))
        start += batch_size
    return np.concatenate(results)


def relevance(weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> np.ndarray:
    """Combines attention weights and their gradients over all blocks.

    Args:
        weights: Attention weights `(B, H, N, N)` of each block.
        gradients: Their gradients, with the same shapes.

    Returns:
        The relevance `(B, N, N)`.
    """
    result = np.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    for block_weights, gradient in zip(weights, gradients, strict=True):
        result = result + np.maximum(block_weights * gradient, 0).mean(1) @ result
    return result


def attention_gradients(
    model: keras.Model, images: Any, classes: Sequence[int] | np.ndarray | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Returns the attention weights of all blocks and the gradients of class logits.

    Args:
        model: A classifier.
        images: Tensor `(B, H, W, C)`.
        classes: Indices of the logits to differentiate, of shape `(B,)`. `None` uses the top class of each image.

    Returns:
        The attention weights and the gradients with respect to them, as two lists with one array `(B, H, N, N)` per block, and
        the gradient with respect to the output of the last block, `(B, N, D)`.

    Raises:
        ValueError: If the Keras backend does not support gradients, or if the model cannot be run layer by layer.
    """
    shapes: list[tuple] = []

    def visit_block(block, weights, output):
        shapes.append((weights.shape, weights.dtype, output.shape, output.dtype))

    check_output(model, images, run_with_attention(model, images, visit_block))
    offsets = [ops.zeros(shape, dtype) for shape, dtype, _, _ in shapes] + [ops.zeros(*shapes[-1][2:])]

    def score(offsets):
        seen = []
        logits = run_with_attention(model, images, lambda block, weights, _: seen.append(weights), offsets, logits=True)
        indices = ops.argmax(logits, axis=-1) if classes is None else classes
        return ops.sum(logits * ops.one_hot(indices, logits.shape[-1], dtype=logits.dtype)), seen

    weights, gradients = _aux_and_gradients(score, offsets)
    *gradients, token_gradients = map(to_numpy, gradients)
    return [to_numpy(array) for array in weights], gradients, token_gradients


def _aux_and_gradients(function, arguments):
    """Returns the second output of `function(arguments)`, and the gradients of the first with respect to the arguments."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arguments)
            score, aux = function(arguments)
        return aux, tape.gradient(score, arguments)
    if keras.backend.backend() == "jax":
        import jax

        gradients, aux = jax.grad(function, has_aux=True)(arguments)
        return aux, gradients
    if keras.backend.backend() == "torch":
        import torch

        arguments = [argument.detach().requires_grad_() for argument in arguments]
        score, aux = function(arguments)
        return aux, torch.autograd.grad(score, arguments)
    raise ValueError(f"Expected KERAS_BACKEND=tensorflow, jax or torch for gradients; received: {keras.backend.backend()}")
