"""The optimizers and the learning rate schedule of a recipe."""

import re
from typing import Any

import keras

from keras_t2t.keras_internals import LayerwiseUpdates
from keras_t2t.models.graph import layers_of, stage_indices
from keras_t2t.models.parts import NOT_DECAYED, head_of
from keras_t2t.recipes import Recipe


@keras.saving.register_keras_serializable("keras_t2t")
class LayerwiseAdamW(LayerwiseUpdates, keras.optimizers.AdamW):
    """AdamW with a learning rate for each layer and a moving average that warms up. See `LayerwiseUpdates`."""


@keras.saving.register_keras_serializable("keras_t2t")
class LayerwiseSGD(LayerwiseUpdates, keras.optimizers.SGD):
    """SGD with momentum, a learning rate for each layer, and a moving average that warms up. See `LayerwiseUpdates`."""


def make_schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate schedule of a recipe: linear warm-up, cosine decay, then the final rate.

    Args:
        recipe: Recipe with the epochs and the learning rates.
        steps: Number of steps in an epoch.
    """
    peak = recipe.learning_rate
    alpha = recipe.final_learning_rate / peak if peak else 0.0
    warmup_steps, last_step = recipe.warmup_epochs * steps, recipe.epochs * steps
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(peak, last_step, alpha)
    return keras.optimizers.schedules.CosineDecay(
        recipe.warmup_learning_rate,
        max(last_step - warmup_steps, 1),
        alpha,
        warmup_target=peak,
        warmup_steps=warmup_steps,
    )


def make_optimizer(recipe: Recipe, model: keras.Model, schedule: Any) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe.

    Args:
        recipe: Recipe with the settings of the optimizer.
        model: Model to train.
        schedule: Learning rate, as a number or a schedule.
    """
    floor = recipe.final_learning_rate if recipe.shared_final_lr else 0.0
    multipliers = layer_lr_multipliers(model, recipe.backbone_lr_multiplier, recipe.layer_decay)
    peak = recipe.learning_rate
    if floor and peak == floor:
        multipliers = {}
    elif floor:  # multipliers apply in full at the peak rate and not at all at the floor
        multipliers = {path: (peak * value - floor) / (peak - floor) for path, value in multipliers.items()}
    steps = recipe.gradient_accumulation_steps
    common: dict[str, Any] = {
        "lr_multipliers": multipliers,
        "lr_floor": floor,
        "global_clipnorm": recipe.global_clipnorm or None,
        "use_ema": recipe.ema_momentum > 0,
        "ema_momentum": recipe.ema_momentum or 0.99,
        "gradient_accumulation_steps": steps if steps > 1 else None,
    }
    if recipe.optimizer == "adamw":
        optimizer = LayerwiseAdamW(schedule, weight_decay=recipe.weight_decay, epsilon=1e-8, **common)
    else:
        optimizer = LayerwiseSGD(schedule, recipe.momentum, coupled_weight_decay=recipe.weight_decay, **common)
    if not recipe.decay_all_weights:
        excluded = [weight for weight in model.trainable_weights if re.search(NOT_DECAYED, weight.path)]
        optimizer.exclude_from_weight_decay(excluded)
    return optimizer


def layer_lr_multipliers(model: keras.Model, backbone_lr_multiplier: float, layer_decay: float) -> dict[str, float]:
    """Returns the learning rates of trainable weights relative to that of the head.

    Args:
        model: Classifier built by `keras_t2t`.
        backbone_lr_multiplier: Multiplier of everything except the head.
        layer_decay: Multiplier of each block, relative to the next block.

    Returns:
        Multipliers by path of the weight. Weights with a multiplier of 1 are left out.
    """
    passed, head = stage_indices(model), head_of(model)
    multipliers = {}
    for layer in layers_of(model):
        stages_left = max(passed.values()) - passed[id(layer)]
        multiplier = 1.0 if layer is head else backbone_lr_multiplier * layer_decay**stages_left
        multipliers.update({weight.path: multiplier for weight in layer.trainable_weights if multiplier != 1.0})
    return multipliers
