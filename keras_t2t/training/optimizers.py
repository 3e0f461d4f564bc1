"""The optimizers and the learning rate schedule of the recipes."""

import re
from typing import Any

import keras

from keras_t2t.keras_internals import LayerwiseUpdates
from keras_t2t.layers import EncoderBlock
from keras_t2t.models import parts
from keras_t2t.training.recipes import Recipe

NOT_DECAYED = r"(^|/)(bias|gamma|beta|token|table|scale\d?)$"  # paths of weights


@keras.saving.register_keras_serializable("keras_t2t")
class LayerwiseAdamW(LayerwiseUpdates, keras.optimizers.AdamW):
    """AdamW with learning rates by layer and a moving average that warms up; see `LayerwiseUpdates`."""


@keras.saving.register_keras_serializable("keras_t2t")
class LayerwiseSGD(LayerwiseUpdates, keras.optimizers.SGD):
    """SGD with momentum, learning rates by layer and a moving average that warms up; see `LayerwiseUpdates`."""


def make_schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate over the steps of a training: linear warm-up, cosine, and then the final rate.

    Args:
        recipe: The recipe.
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
    """Returns the optimizer of a recipe for a model.

    Args:
        recipe: The recipe.
        model: The model to train.
        schedule: The learning rate, a number or a schedule.
    """
    floor = recipe.final_learning_rate if recipe.shared_final_lr else 0.0
    multipliers = layer_lr_multipliers(model, recipe.backbone_lr_multiplier, recipe.layer_decay)
    if floor:  # the multipliers hold at the peak, and vanish at the floor
        peak = recipe.learning_rate
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
    """Returns the learning rate of each trainable weight as a multiple of the head's, by path, where it is not 1.

    Args:
        model: A classifier built by this package.
        backbone_lr_multiplier: Multiplier of everything but the head.
        layer_decay: Multiplier of each block relative to the next one.
    """
    stages = [layer for layer in model.layers if isinstance(layer, EncoderBlock) or layer.name == parts.NORM]
    multipliers, passed = {}, 0
    for layer in model.layers:
        passed += layer in stages
        is_head = layer is parts.head_of(model)
        multiplier = 1.0 if is_head else backbone_lr_multiplier * layer_decay ** (len(stages) - passed)
        multipliers.update({weight.path: multiplier for weight in layer.trainable_weights if multiplier != 1.0})
    return multipliers
