"""The learning rate over the steps of a training."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_t2t")
class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A line up, a half cosine down, and then the final rate.

    Args:
        peak: the learning rate after the warm-up.
        first: the learning rate of the first step.
        final: the learning rate after the cosine.
        warmup_steps: steps of the line.
        cosine_steps: the step at which the cosine ends, counted from the beginning.
    """

    def __init__(self, peak: float, first: float, final: float, warmup_steps: int, cosine_steps: int):
        self.peak, self.first, self.final = peak, first, final
        self.warmup_steps, self.cosine_steps = warmup_steps, cosine_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        line = self.first + (self.peak - self.first) * step / max(self.warmup_steps, 1)
        part = (step - self.warmup_steps) / max(self.cosine_steps - self.warmup_steps, 1)
        cosine = self.final + (self.peak - self.final) * (1 + ops.cos(math.pi * ops.clip(part, 0.0, 1.0))) / 2
        return ops.where(step < self.warmup_steps, line, cosine)

    def get_config(self):
        names = ("peak", "first", "final", "warmup_steps", "cosine_steps")
        return {name: getattr(self, name) for name in names}
