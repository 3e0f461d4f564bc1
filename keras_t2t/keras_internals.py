"""All code that relies on Keras internals: the layout of saved files, the graph of a model, and the internals of optimizers.

Tested with Keras 3.15. If a newer version of Keras breaks this code, only this file needs to change.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

H5_LAYERS = "layers"
"""The group of a `.weights.h5` file that holds the layers of a functional model."""

H5_MODEL = "model_weights"
"""The group of a whole model in an `.h5` file that holds the layers. In each layer, the weights are stored by their path."""

WEIGHTS_IN_KERAS_FILE = "model.weights.h5"
CONFIG_IN_KERAS_FILE = "config.json"
CONFIG_IN_H5_FILE = "model_config"
"""The attribute of a whole model in an `.h5` file that has its configuration."""


def h5_group(class_name: str, index: int) -> str:
    """Returns the group of a layer in a `.weights.h5` file: its class name in snake case, with a number if `index` is not 0."""
    return f"{class_name}_{index}" if index else class_name


def h5_weight(index: int) -> str:
    """Returns the path of a weight within the group of its layer."""
    return f"vars/{index}"


def is_graph(model: Any) -> bool:
    """Returns whether an operation is a model with a graph: a functional model, or a Sequential model with a known input."""
    return isinstance(model, keras.Model) and hasattr(_functional(model), "_run_through_graph")


def _functional(model):
    return getattr(model, "_functional", None) or model


def run_graph(model: keras.Model, inputs: Any, call: Callable[..., Any]) -> Any:
    """Runs a model one operation at a time, in the order of its graph. This includes the operations of nested models.

    Args:
        model: A model for which `is_graph` is true, with one input.
        inputs: The input, of any type that `call` accepts.
        call: Function that is called as `call(operation, *args, **kwargs)` in place of each operation and returns its output.

    Returns:
        The output of the model. If there are several, they have the structure of the model's outputs.

    Raises:
        ValueError: If the model has another number of inputs.
    """
    if len(keras.tree.flatten(inputs)) != len(_functional(model).inputs):
        raise ValueError(f"Expected a model with one input; received: {model.name!r}, which has {len(model.inputs)}")

    def run(operation):
        if is_graph(operation):
            return lambda *args, **kwargs: run_graph(operation, args[0], call)
        return lambda *args, **kwargs: call(operation, *args, **kwargs)

    outputs = _functional(model)._run_through_graph(inputs, run)
    first, *others = keras.tree.flatten(outputs)
    return outputs if others else first


class StopGraph(Exception):  # noqa: N818  like StopIteration
    """Raised by functions that `run_graph` calls, to end the run early. The caller of `run_graph` must suppress it."""


def producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Returns the operation that computes a symbolic tensor, and the inputs of that operation. Looks inside nested models."""
    operation, node_index, tensor_index = tensor._keras_history
    if is_graph(operation):
        return producer(_functional(operation).outputs[tensor_index])
    return operation, operation._inbound_nodes[node_index].input_tensors


def inputs_of(layer: keras.Layer) -> list[Any]:
    """Returns the symbolic tensors that a layer was called with, in all models that it is part of."""
    return [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]


def layers_inside(layer: keras.Layer) -> list[keras.Layer]:
    """Returns a layer and all layers inside it."""
    return list(layer._flatten_layers())


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Copies the weights of a layer to another one of the same structure, as if it was saved and loaded.

    Unlike `set_weights`, this merges LoRA, and updates what layers such as `keras.layers.Normalization` compute from their
    weights.
    """
    for old, new in zip(layers_inside(source), layers_inside(target), strict=True):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        new.load_own_variables({name: ops.convert_to_numpy(value) for name, value in store.items()})


def call_for_inference(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a layer with `training=False` if it takes that, as models do in inference, or another operation as it is."""
    if getattr(operation, "_call_has_training_arg", False):
        kwargs["training"] = False
    return operation(*args, **kwargs)


def draws_random_numbers(layer: keras.Layer) -> bool:
    """Returns whether a built layer, or a layer inside it, has a generator of random numbers of Keras or keras-cv."""
    if any("seed_generator" in variable.path for variable in layer.variables):
        return True
    return any(hasattr(inner, "_random_generator") for inner in layers_inside(layer))  # layers of keras-cv


def moving_averages(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns the (weight, moving average) pairs of an optimizer, or an empty list if it does not keep any."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema:
        return []
    pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return [(weight, average) for weight, average in pairs if average is not None]


class LayerwiseUpdates(keras.optimizers.Optimizer):
    """A mixin that gives Keras optimizers a learning rate for each weight, and a moving average with warmup.

    List it before the optimizer class: `class LayerwiseAdamW(LayerwiseUpdates, keras.optimizers.AdamW)`.

    Args:
        *args: Arguments of the optimizer.
        lr_multipliers: Mapping of weight paths to learning rate multipliers. Other weights have a multiplier of 1.
        lr_floor: Part of the learning rate that is not multiplied. The learning rate of a weight is
            `lr_floor + multiplier * (lr - lr_floor)`.
        coupled_weight_decay: Weight decay that is added to the gradient, as in PyTorch's SGD.
        **kwargs: Keyword arguments of the optimizer.
    """

    def __init__(
        self,
        *args: Any,
        lr_multipliers: Mapping[str, float] | None = None,
        lr_floor: float = 0.0,
        coupled_weight_decay: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.lr_multipliers = dict(lr_multipliers or {})
        self.lr_floor = lr_floor
        self.coupled_weight_decay = coupled_weight_decay

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self._multipliers = {
            self._var_key(variable): self.lr_multipliers[variable.path]
            for variable in variables
            if variable.path in self.lr_multipliers
        }

    def _learning_rate_of(self, variable, learning_rate):
        multiplier = self._multipliers.get(self._var_key(variable))
        return learning_rate if multiplier is None else self.lr_floor + multiplier * (learning_rate - self.lr_floor)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        if self.coupled_weight_decay and self._use_weight_decay(variable):
            gradient = gradient + ops.cast(self.coupled_weight_decay, gradient.dtype) * variable
        super().update_step(gradient, variable, self._learning_rate_of(variable, learning_rate))

    def _apply_weight_decay(self, variables):
        if self.weight_decay is None:
            return
        learning_rate = ops.cast(self.learning_rate, "float32")
        for variable in variables:
            if self._use_weight_decay(variable):
                decay = self._learning_rate_of(variable, learning_rate) * self.weight_decay
                variable.assign(variable * ops.cast(1 - decay, variable.dtype))

    def _update_model_variables_moving_average(self, trainable_variables):
        """Warms up the momentum.

        If it were constant, the averages would stay close to the random initial weights for many epochs. After the
        first batch, the averages equal the weights.
        """
        if not self.use_ema:
            return
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum((1 + step) / (10 + step), self.ema_momentum)
        if self.gradient_accumulation_steps:  # weights change only after the last batch of a step
            is_last = (self._iterations + 1) % self.gradient_accumulation_steps == 0
            momentum = ops.where(is_last, momentum, 1.0)
        momentum = ops.where(self._iterations == 0, 0.0, momentum)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                decay = ops.cast(momentum, average.dtype)
                average.assign(decay * average + (1 - decay) * ops.cast(variable, average.dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "lr_multipliers": self.lr_multipliers,
            "lr_floor": self.lr_floor,
            "coupled_weight_decay": self.coupled_weight_decay,
        }
