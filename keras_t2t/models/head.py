"""The classifier on top of features, and its replacement for other classes."""

from collections.abc import Sequence

import keras

from keras_t2t.configs import is_count
from keras_t2t.layers import Predictions
from keras_t2t.layers.common import precise_dtype
from keras_t2t.layers.dense import Dense
from keras_t2t.models.t2t_vit import config_of

FEATURES = ("norm", "avg_pool", "max_pool")  # the last layers of models without a head


def classify(features, classes: int, activation="softmax", labels: Sequence[str] | None = None, dtype=None):
    """Adds a classifier to a functional model: features (B, D) to scores (B, classes), in at least float32."""
    logits = Dense(int(classes), name="head", dtype=dtype)(features)
    return Predictions(activation, labels, name="predictions", dtype=precise_dtype(logits.dtype))(logits)


def replace_head(model: keras.Model, classes: int | Sequence[str], classifier_activation="softmax") -> keras.Model:
    """Returns a model with the body of `model` and a fresh classifier, for fine-tuning on other classes.

    The two models share the layers of the body: training one trains the other.

    Args:
        model: a classifier of this package, or a model of it that returns features (B, D), such as one built with
            `include_top=False, pooling="token"`.
        classes: the number of classes, or their names in the order of the labels' numbers; the new model then carries them.
        classifier_activation: activation of the classifier; None for logits.

    Returns:
        A functional `keras.Model` with the inputs and the name of `model`.

    Raises:
        ValueError: if `classes` is neither a positive integer nor names, if `model` is not of this package, or if it
            returns something else.
    """
    config_of(model)  # raises for models of others
    labels = None if is_count(classes) else _names(classes)
    head = next((layer for layer in model.layers if layer.name == "head"), None)
    features = model.output if head is None else head.input
    if head is None and (model.layers[-1].name not in FEATURES or len(features.shape) != 2):
        raise ValueError(
            "Expected a classifier, or a model that returns features (batch, channels), such as one built with "
            f"`include_top=False, pooling='token'`; received a model with the output shape {model.output_shape}"
        )
    dtype = model.layers[-1].dtype_policy if head is None else head.dtype_policy
    count = classes if labels is None else len(labels)
    return keras.Model(model.input, classify(features, count, classifier_activation, labels, dtype), name=model.name)


def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """Returns the names of a classifier's classes in the order of its outputs, or None if it does not carry any."""
    return next((layer.labels for layer in model.layers if isinstance(layer, Predictions)), None)


def _names(classes):
    valid = isinstance(classes, (list, tuple)) and classes and all(isinstance(name, str) for name in classes)
    if not valid or len(set(classes)) != len(classes):
        raise ValueError(
            f"`classes` should be a positive integer or the distinct names of classes. Received: classes={classes!r}"
        )
    return classes
