"""Functions that analyze a model by its graph, so they also work for nested models and models with added layers."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from keras_t2t.keras_internals import StopGraph, call_for_inference, is_graph, producer, run_graph
from keras_t2t.layers import EncoderBlock, FastLayerNorm, ResizeLike, TokensToToken

ACTIVATION_OPERATIONS = {"LogSoftmax": "log_softmax", "Relu": "relu", "Sigmoid": "sigmoid", "Softmax": "softmax"}
"""The name of the activation by the class name of the `keras.ops` operation that can follow the last dense layer."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The classifier at the end of a model.

    Attributes:
        dense: The dense layer that computes the logits.
        features: Symbolic input `(B, D)` of the dense layer. If that layer is in a nested model, so is this tensor.
        activations: Names of the functions that are applied to the logits, in order. Empty if the model returns logits.
        layers_after: Operations after the dense layer, in reverse order.
    """

    dense: keras.Layer
    features: Any
    activations: tuple[str, ...]
    layers_after: tuple[Any, ...]


def find_head(model: keras.Model, per_pixel: bool = False) -> Head | None:
    """Returns the head of a model, or `None` if its output does not come from a dense layer.

    The head is a dense layer at the end of the graph, optionally followed by activations. Its name does not matter.

    Args:
        model: Any model.
        per_pixel: Whether to look for the head of a segmenter, which returns scores for every pixel, instead of the head of a
            classifier.
    """
    if not is_graph(model) or len(model.outputs) != 1 or len(model.outputs[0].shape) != (4 if per_pixel else 2):
        return None
    activations: list[str] = []
    after: list[Any] = []
    operation, inputs = producer(model.outputs[0])
    while (name := _activation(operation)) is not None:
        activations = [name, *activations] if name != "linear" else activations
        after.append(operation)
        operation, inputs = producer(inputs[0])
    if not isinstance(operation, keras.layers.Dense):
        return None
    if operation.activation not in (None, keras.activations.linear):
        activations = [getattr(operation.activation, "__name__", "unknown"), *activations]
    return Head(operation, inputs[0], tuple(activations), tuple(after))


def _activation(operation):
    """Returns the name of the function if an operation only applies an activation, otherwise `None`.

    An operation that does nothing in inference counts as the activation `linear`.
    """
    if isinstance(operation, keras.layers.Activation):
        return getattr(operation.activation, "__name__", "unknown")
    if isinstance(operation, (keras.layers.Identity, keras.layers.Dropout, ResizeLike)):
        return "linear"
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    kind = type(operation).__name__
    if kind == "Cast" and keras.backend.is_float_dtype(operation.dtype):  # old versions of Keras add one before a layer
        return "linear"
    return None if isinstance(operation, keras.Layer) else ACTIVATION_OPERATIONS.get(kind)


def image_input(model: keras.Model) -> Any:
    """Returns the symbolic input `(B, H, W, C)` of a model.

    Raises:
        ValueError: If the model does not have exactly one input, or if that is not for images.
    """
    inputs = getattr(model, "inputs", None) or []  # a `Sequential` that was never called has no such attribute
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(str(each.shape) for each in inputs)
        raise ValueError(
            "Expected a model with one input, for images of shape (batch, height, width, channels); received: "
            f"{model.name!r} {f'with inputs of shape {shapes}' if inputs else 'without inputs. Start it with keras.Input'}"
        )
    return inputs[0]


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """Yields the layers of a model in the order of its graph. A nested model is replaced by its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def blocks_of(model: keras.Model) -> list[EncoderBlock]:
    """Returns the encoder blocks of a model in the order of its graph.

    Raises:
        ValueError: If there are no blocks, if two blocks have the same name, or if the model has no graph.
    """
    blocks = [layer for layer in layers_of(model) if isinstance(layer, EncoderBlock)] if is_graph(model) else []
    if not blocks:
        raise ValueError(
            "Expected a model built by keras_t2t, functional or Sequential, with EncoderBlock layers. If this model was made "
            f"by optimize_for_inference, pass the original model instead. Received: {model!r}"
        )
    names = [block.name for block in blocks]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected blocks with different names; received: {names}. Pass one of the nested models instead")
    return blocks


def input_of(layer: keras.Layer, model: keras.Model, images: Any) -> Any:
    """Returns what a layer of a model receives for `images` `(B, H, W, C)` in inference, or `None` if it is not reached."""
    received: list[Any] = []

    def call(operation, *args, **kwargs):
        if operation is layer:
            received.append(args[0])
            raise StopGraph
        return call_for_inference(operation, *args, **kwargs)

    with contextlib.suppress(StopGraph):
        run_graph(model, images, call)
    return received[0] if received else None


def tokens_to_token_of(model: keras.Model) -> TokensToToken:
    """Returns the T2T module of a model.

    Raises:
        ValueError: If the model does not have exactly one T2T module.
    """
    modules = [layer for layer in layers_of(model) if isinstance(layer, TokensToToken)]
    if len(modules) != 1:
        raise ValueError(
            f"Expected a model with one TokensToToken layer; received: {model.name!r}, which has {len(modules)}"
            + (". Pass one of the nested models instead" if modules else "")
        )
    return modules[0]


def stage_indices(model: keras.Model) -> dict[int, int]:
    """Returns the number of encoder blocks and norms from the input up to each operation, by the operation's `id`."""
    passed: dict[int, int] = {}

    def call(operation, *args, **kwargs):
        before = max((value for value in keras.tree.flatten((args, kwargs)) if type(value) is int), default=0)
        passed[id(operation)] = before + isinstance(operation, (EncoderBlock, FastLayerNorm))
        return passed[id(operation)]

    run_graph(model, 0, call)
    for layer in layers_of(model):
        passed.setdefault(id(layer), 0)  # inputs
    return passed
