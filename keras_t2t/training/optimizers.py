"""The optimizers of the recipes: those of Keras, with learning rates by layer and an average of the weights that warms up."""

import re

import keras
from keras import ops

from keras_t2t.training.recipes import Recipe


class _ByLayer:
    """What both optimizers share, as a base class before that of Keras.

    `rates` are factors of the learning rate by path of the weight, where that is not 1. With `coupled_weight_decay` weight
    decay is a term of the gradient, as SGD has it in PyTorch.
    """

    def __init__(self, *args, rates: dict[str, float] | None = None, coupled_weight_decay: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = dict(rates or {})
        self.coupled_weight_decay = coupled_weight_decay

    def build(self, variables):
        super().build(variables)
        self._factors = {self._var_key(v): self.rates[v.path] for v in variables if v.path in self.rates}

    def _factor(self, variable):
        return self._factors.get(self._var_key(variable), 1.0)

    def update_step(self, gradient, variable, learning_rate):
        if self.coupled_weight_decay and self._use_weight_decay(variable):
            gradient = gradient + ops.cast(self.coupled_weight_decay, gradient.dtype) * variable
        super().update_step(gradient, variable, learning_rate * self._factor(variable))

    def _apply_weight_decay(self, variables):
        if self.weight_decay is None:
            return
        rate = ops.cast(self.learning_rate, "float32") * self.weight_decay
        for variable in variables:
            if self._use_weight_decay(variable):
                variable.assign(variable * ops.cast(1 - rate * self._factor(variable), variable.dtype))

    def _update_model_variables_moving_average(self, trainable_variables):
        """The average follows closely at first: with the decay of the end, it would be noise for many epochs.

        It begins, after the first batch, as the weights.
        """
        if not self.use_ema:
            return
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum((1 + step) / (10 + step), self.ema_momentum)
        if self.gradient_accumulation_steps:  # weights change at the last batch of a step only
            last = (self._iterations + 1) % self.gradient_accumulation_steps == 0
            momentum = ops.where(last, momentum, 1.0)
        momentum = ops.where(self._iterations == 0, 0.0, momentum)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                weight = ops.cast(momentum, average.dtype)
                average.assign(weight * average + (1 - weight) * ops.cast(variable, average.dtype))

    def get_config(self):
        return {**super().get_config(), "rates": self.rates, "coupled_weight_decay": self.coupled_weight_decay}


@keras.saving.register_keras_serializable("keras_t2t")
class AdamW(_ByLayer, keras.optimizers.AdamW):
    """AdamW, with `rates` by path of the weight."""


@keras.saving.register_keras_serializable("keras_t2t")
class SGD(_ByLayer, keras.optimizers.SGD):
    """SGD with momentum, with `rates` by path of the weight and `coupled_weight_decay`."""


NOT_DECAYED = r"(^|/)(bias|gamma|beta|token|table|scale\d?)$"  # of the path


def make_optimizer(recipe: Recipe, model: keras.Model, schedule) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe for a model."""
    common = {
        "rates": learning_rate_factors(model, recipe.body_rate, recipe.layer_decay),
        "global_clipnorm": recipe.clip_norm or None,
        "use_ema": recipe.ema > 0,
        "ema_momentum": recipe.ema or 0.99,
        "gradient_accumulation_steps": recipe.accumulation_steps if recipe.accumulation_steps > 1 else None,
    }
    if recipe.optimizer == "adamw":
        optimizer = AdamW(schedule, weight_decay=recipe.weight_decay, epsilon=1e-8, **common)
    else:
        optimizer = SGD(schedule, recipe.momentum, coupled_weight_decay=recipe.weight_decay, **common)
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_weights if re.search(NOT_DECAYED, weight.path)])
    return optimizer


def learning_rate_factors(model: keras.Model, body_rate: float, layer_decay: float) -> dict[str, float]:
    """Returns the learning rate of each trainable weight over that of the head, by path, where the two differ."""
    stages = [layer for layer in model.layers if re.fullmatch(r"block\d+|norm", layer.name)]
    factors, passed = {}, 0
    for layer in model.layers:
        passed += layer in stages
        factor = 1.0 if layer.name == "head" else body_rate * layer_decay ** (len(stages) - passed)
        factors.update({weight.path: factor for weight in layer.trainable_weights if factor != 1.0})
    return factors
