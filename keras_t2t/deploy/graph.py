"""The graph that every format is converted from: frozen, with the shapes that are wanted."""

import keras
import numpy as np

from keras_t2t.deploy.runtimes import INPUTS


def input_name(model: keras.Model) -> str:
    """Returns what the input of a model is called in files: `"images"`, or `"normalised_images"` if it wants them so."""
    return INPUTS[normalises(model)]


def output_name(model: keras.Model) -> str:
    """Returns what the output of a model is called in files: `"scores"` of a classifier, else `"features"`."""
    return "scores" if model.layers[-1].name == "predictions" else "features"


def normalises(model: keras.Model) -> bool:
    """Whether a model takes pixels in [0, 255] and normalises them itself."""
    return any(layer.name == "normalisation" for layer in model.layers)


def inference_function(model: keras.Model):
    """Returns a function for TensorFlow from images (B, H, W, C) of any type to the output of a model."""
    import tensorflow as tf

    def infer(images):
        return model(tf.cast(images, model.input.dtype), training=False)

    return tf.function(infer, autograph=False)


def frozen_function(model: keras.Model, batch_size: int | None, input_dtype: str = "float32"):
    """Returns the concrete function of a model, its weights constants: images (B, H, W, C) to a list of one tensor.

    A function that is not frozen would convert to a TFLite file without weights.

    Args:
        model: of a fixed image size.
        batch_size: None for any.
        input_dtype: `"float32"` or `"uint8"`.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((batch_size, *model.input_shape[1:]), input_dtype, name=input_name(model))
    return convert_variables_to_constants_v2(inference_function(model).get_concrete_function(spec))


def as_probabilities(scores: np.ndarray) -> np.ndarray:
    """Returns the probabilities (n, classes), float64, of scores that are logits; what lies in [0, 1] as it is."""
    scores = np.asarray(scores, "float64")
    if scores.min() >= 0 and scores.max() <= 1:  # of softmax, or of sigmoids
        return scores
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether scores (n, classes) are probabilities, and not logits, by their values."""
    return scores.ndim == 2 and scores.min() >= 0 and np.allclose(scores.sum(axis=-1), 1, atol=1e-3)


def as_logits(scores: np.ndarray) -> np.ndarray:
    """Returns logits, up to a constant for each image, of outputs that are probabilities; other outputs as they are."""
    scores = np.asarray(scores, "float64")
    if not are_probabilities(scores):
        return scores
    logits = np.log(np.maximum(scores, 1e-30))
    return logits - logits.mean(axis=-1, keepdims=True)
