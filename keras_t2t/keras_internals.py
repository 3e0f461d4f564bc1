"""Everything that depends on parts of Keras that are not public: the layout of its files and the inside of its optimizers.

Tried with Keras 3.15. If a newer Keras breaks one of these, this is the only file to change.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

H5_LAYERS = "layers"
"""The group of a `.weights.h5` file that holds the layers of a functional model."""

WEIGHTS_IN_KERAS_FILE = "model.weights.h5"
CONFIG_IN_KERAS_FILE = "config.json"


def h5_group(class_name: str, index: int) -> str:
    """Returns the group of a layer in a `.weights.h5` file: its class in snake case, numbered from the second one on."""
    return f"{class_name}_{index}" if index else class_name


def h5_weight(index: int) -> str:
    """Returns the place of a weight in the group of its layer."""
    return f"vars/{index}"


def moving_averages(optimizer: keras.optimizers.Optimizer) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns the (weight, moving average) pairs that an optimizer keeps; an empty list without a moving average."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema:
        return []
    pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return [(weight, average) for weight, average in pairs if average is not None]


class LayerwiseUpdates:
    """A base class to put before an optimizer of Keras: learning rates by weight, and a moving average that warms up.

    Args:
        lr_multipliers: Multiplier of the learning rate by path of the weight, where that is not 1.
        lr_floor: The learning rate that multipliers do not change: a weight has `lr_floor + multiplier * (lr - lr_floor)`.
        coupled_weight_decay: Weight decay that is added to the gradient, as SGD has it in PyTorch.
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
        """Keeps the average close to the weights at first. With the final momentum it would be noise for many epochs.

        After the first batch the average equals the weights.
        """
        if not self.use_ema:
            return
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum((1 + step) / (10 + step), self.ema_momentum)
        if self.gradient_accumulation_steps:  # weights change only at the last batch of a step
            last = (self._iterations + 1) % self.gradient_accumulation_steps == 0
            momentum = ops.where(last, momentum, 1.0)
        momentum = ops.where(self._iterations == 0, 0.0, momentum)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                weight = ops.cast(momentum, average.dtype)
                average.assign(weight * average + (1 - weight) * ops.cast(variable, average.dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "lr_multipliers": self.lr_multipliers,
            "lr_floor": self.lr_floor,
            "coupled_weight_decay": self.coupled_weight_decay,
        }
