"""Conversion and checks of single settings, whatever their origin: Python, a YAML file, or the command line."""

import math
import typing
from typing import Any

from keras_t2t.preprocessing import INTERPOLATIONS

_CHOICES = {
    "crop_mode": ("resized", "padded", "none"),
    "interpolation": INTERPOLATIONS,
    "optimizer": ("adamw", "sgd"),
    "dtype": ("float32", "mixed_bfloat16", "mixed_float16"),
    "eval_interpolation": INTERPOLATIONS,
}
_POSITIVE = ("image_size", "epochs", "batch_size", "gradient_accumulation_steps", "evaluate_every", "eval_crop_fraction")
_FRACTIONS = (
    *("random_erase_prob", "mixup_prob", "mixup_switch_prob", "label_smoothing", "momentum", "ema_momentum"),
    *("eval_crop_fraction", "validation_fraction"),
)
_RATES = ("token_drop_rate", "drop_rate", "drop_path_rate")


def check_fields(settings: Any) -> None:
    """Converts every field of a dataclass to its type, and checks its value.

    Raises:
        ValueError: If a value is of another type or invalid.
    """
    for name, kind in typing.get_type_hints(type(settings)).items():
        value = _converted(name, getattr(settings, name), kind)
        object.__setattr__(settings, name, value)
        requirement = _unmet_requirement(name, value)
        if requirement:
            raise ValueError(f"Expected {name} to be {requirement}; received: {name}={value!r}")


def _unmet_requirement(name, value):
    """Returns what a setting must be, or `None` if its value is valid."""
    if name in _CHOICES:
        return None if value in _CHOICES[name] else f"one of {_CHOICES[name]}"
    if name in ("mean", "std"):
        is_valid = len(value) in (0, 3) and all(0 < number <= 1 or (name, number) == ("mean", 0) for number in value)
        return None if is_valid else f"three numbers in {'[0, 1]' if name == 'mean' else '(0, 1]'}, for pixels in [0, 1]"
    if name == "crop_scale":
        return None if 0 < value[0] <= value[1] <= 1 else "two numbers (low, high) in (0, 1]"
    if isinstance(value, tuple):
        return None if 0 < value[0] <= value[1] < math.inf else "two positive numbers (low, high)"
    if isinstance(value, str):
        return None
    if name in _FRACTIONS and not 0 <= value <= 1:
        return "in [0, 1]"
    if name in _RATES and not 0 <= value < 1:
        return "in [0, 1)"
    if name in _POSITIVE and not value > 0:
        return "positive"
    return None if 0 <= value < math.inf else "a finite non-negative number"


def _converted(name, value, kind):
    """Returns the value of a setting in the type of its field."""
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if typing.get_origin(kind) is tuple:
            values = value.strip("()[] ").split(",") if isinstance(value, str) else value
            numbers = tuple(map(float, filter(None, values)) if isinstance(value, str) else map(float, values))
            if Ellipsis not in typing.get_args(kind) and len(numbers) != 2:
                raise ValueError
            return numbers
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (KeyError, OverflowError, TypeError, ValueError):
        is_tuple = typing.get_origin(kind) is tuple
        expected = (
            ("numbers" if Ellipsis in typing.get_args(kind) else "two numbers") if is_tuple else f"of type {kind.__name__}"
        )
        raise ValueError(f"Expected {name} to be {expected}; received: {name}={value!r}") from None
