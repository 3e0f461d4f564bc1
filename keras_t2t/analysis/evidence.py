"""Which parts of an image speak for a class."""

import keras
import numpy as np
from keras import ops

from keras_t2t.analysis.model_parts import batches, run_encoder, split_model, to_numpy
from keras_t2t.configs import token_grid


def class_evidence(model: keras.Model, images, classes=None, batch_size: int = 4) -> np.ndarray:
    """Returns how much each token speaks for a class: attention weighted by the gradient of the class's logit.

    Chefer, Gur and Wolf, "Generic Attention-Model Explainability", ICCV 2021: the relevance R starts as the identity and each
    block adds A R to it, A being the mean over the heads of the positive part of attention times its gradient. Only the blocks
    are followed; what the T2T module mixes before them counts for the token where it ends up.

    Args:
        model: a classifier of this package.
        images: (B, H, W, C), in the range that the model takes.
        classes: (B,) numbers of the classes; None for the likeliest ones.
        batch_size: how many images pass at a time; each keeps the attention of all blocks and its gradient.

    Returns:
        (B, h, w), the relevance of the grid for the class token, 0 or more, of any scale.

    Raises:
        ValueError: if the model has no classifier on its class token, if there is not a class for each image, or on a backend
            without gradients.
    """
    model_parts = split_model(model)
    if model_parts.classifier is None:
        raise ValueError(f"Expected a classifier: the evidence is for a class; {model.name} has no head on its class token")
    count = model_parts.classifier.output_shape[-1]
    if classes is not None:
        classes = np.asarray(classes)
        is_number = np.issubdtype(classes.dtype, np.integer)
        if not is_number or classes.shape != (len(images),) or not ((classes >= 0) & (classes < count)).all():
            raise ValueError(f"Expected {len(images)} classes from 0 to {count - 1}; received: classes={classes}")
    results, done = [], 0
    for batch in batches(model, images, batch_size):
        chosen = None if classes is None else classes[done : done + batch_size]
        weights, gradients = attention_gradients(model_parts, batch, chosen)
        grid = token_grid(model_parts.config.soft_splits, *batch.shape[1:3])
        results.append(relevance(weights, gradients)[:, 0, 1:].reshape(-1, *grid))
        done += batch_size
    return np.concatenate(results)


def relevance(weights, gradients) -> np.ndarray:
    """Returns the relevance (B, N, N) from attention weights and their gradients, each (B, H, N, N) for each block."""
    result = np.eye(weights[0].shape[-1], dtype=weights[0].dtype)
    for block, gradient in zip(weights, gradients, strict=True):
        result = result + np.maximum(block * gradient, 0).mean(1) @ result
    return result


def attention_gradients(model_parts, images, classes=None):
    """Returns the attention weights of all blocks and the gradients of logits with respect to them.

    Args:
        model_parts: the parts of a classifier.
        images: tensor (B, H, W, C).
        classes: numbers of the classes (B,), whose logits are derived; None for those of the highest logits.

    Returns:
        Two lists of arrays (B, H, N, N), one for each block.
    """
    _, tokens = model_parts.entry(images, training=False)
    batch, count, _ = tokens.shape

    def score(offsets):
        weights, outputs = zip(*run_encoder(model_parts, tokens, offsets), strict=True)
        logits = model_parts.classifier(outputs[-1][:, :1], training=False)
        chosen = ops.argmax(logits, axis=-1) if classes is None else classes
        return ops.sum(logits * ops.one_hot(chosen, logits.shape[-1], dtype=logits.dtype)), weights

    heads = model_parts.config.num_heads
    offsets = [ops.zeros((batch, heads, count, count), tokens.dtype) for _ in model_parts.block_names]
    weights, gradients = _value_and_gradients(score, offsets)
    return [to_numpy(array) for array in weights], [to_numpy(array) for array in gradients]


def _value_and_gradients(function, arguments):
    """Returns the second result of `function(arguments)`, and the gradients of the first with respect to the arguments."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arguments)
            score, value = function(arguments)
        return value, tape.gradient(score, arguments)
    if keras.backend.backend() == "jax":
        import jax

        gradients, value = jax.grad(function, has_aux=True)(arguments)
        return value, gradients
    raise ValueError(f"Expected KERAS_BACKEND=tensorflow or jax for gradients; received: {keras.backend.backend()}")
