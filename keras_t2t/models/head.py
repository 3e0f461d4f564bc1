"""Adding a classifier to a model, and replacing it for other classes."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import keras

from keras_t2t.configs import is_count
from keras_t2t.keras_internals import producer, run_graph
from keras_t2t.layers import FastDense, Predictions
from keras_t2t.layers.common import precise_dtype
from keras_t2t.models.graph import find_head, layers_of
from keras_t2t.models.parts import HEAD, PREDICTIONS, preprocessing_of


def classify(
    features: Any,
    classes: Any,
    activation: Any = "softmax",
    labels: Sequence[str] | None = None,
    dtype: Any = None,
    taken: Collection[str] = (),
) -> Any:
    """Adds a classifier to a functional model. It maps features `(B, D)` to scores `(B, classes)`, in at least float32.

    If one of the names of its layers is among those that are `taken`, a number is appended.
    """
    logits = FastDense(int(classes), name=_free_name(HEAD, taken), dtype=dtype)(features)
    dtype = precise_dtype(logits.dtype)
    return Predictions(activation, labels, name=_free_name(PREDICTIONS, taken), dtype=dtype)(logits)


def _free_name(name, taken):
    candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(candidate for candidate in candidates if candidate not in taken)


def replace_head(model: keras.Model, classes: int | Sequence[str], classifier_activation: Any = "softmax") -> keras.Model:
    """Returns a model with the backbone of `model` and a new classifier, for fine-tuning on other classes.

    The two models share the layers of the backbone, so training one of them changes the other.

    Args:
        model: A classifier built by this package, or another model built by it that returns features `(B, D)`, such as one with
            `include_top=False, pooling="token"`.
        classes: Number of classes, or a list of their names in the order of the labels. The new model stores the names.
        classifier_activation: Activation of the classifier, or `None` to return logits.

    Returns:
        A functional `keras.Model` with the inputs and the name of `model`.

    Raises:
        ValueError: If `classes` is neither a positive integer nor a list of distinct names, if `model` was not built by this
            package, if it returns neither scores nor features `(B, D)`, or if it changes the scores of a classifier of this
            package, such as the average of two classifiers.
    """
    preprocessing_of(model)  # raises unless built by keras_t2t
    count, labels = class_count_and_labels(classes)
    features = _features(model)
    head, layers = find_head(model), list(layers_of(model))
    dtype = (layers[-1] if head is None else head.dense).dtype_policy
    dropped = () if head is None else (head.dense, *head.layers_after)
    taken = {layer.name for layer in layers if layer not in dropped}
    outputs = classify(features, count, classifier_activation, labels, dtype, taken)
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _features(model):
    """Returns the symbolic features `(B, D)` of a model: the input of its head, or its output if it has no head."""
    head = find_head(model)
    if head is None:
        if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
            raise ValueError(
                "Expected a classifier, or a model that returns features (batch, channels), such as one built with "
                f"`include_top=False, pooling='token'`; received a model with the output shape {model.output_shape}"
            )
        if any(isinstance(layer, Predictions) for layer in layers_of(model)):
            raise ValueError(
                "Expected a model with only activations after its classifier; received one that ends with "
                f"{producer(model.outputs[0])[0].name!r}. Replace the head before you add other layers"
            )
        return model.outputs[0]
    if any(layer is head.dense for layer in model.layers):
        return head.features
    # The head is inside a nested model, so every operation except the head is called again, on the same inputs.
    dropped = {id(operation) for operation in (head.dense, *head.layers_after)}

    def call(operation, *args, **kwargs):
        return args[0] if id(operation) in dropped else operation(*args, **kwargs)

    return run_graph(model, model.inputs[0], call)


def class_count_and_labels(classes: int | Sequence[str]) -> tuple[int, Sequence[str] | None]:
    """Returns the number of classes, and their names if `classes` is a list of names.

    Raises:
        ValueError: If `classes` is neither a positive integer nor a list of distinct names.
    """
    if isinstance(classes, (list, tuple)):
        if classes and all(isinstance(name, str) for name in classes) and len(set(classes)) == len(classes):
            return len(classes), classes
    elif not isinstance(classes, Sequence) and is_count(classes):
        return int(classes), None
    raise ValueError(f"`classes` should be a positive integer or a list of distinct class names. Received: classes={classes!r}")
