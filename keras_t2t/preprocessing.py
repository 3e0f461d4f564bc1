"""What a model expects and what it returns, as plain frozen dataclasses that are stored in models and in exported files."""

import dataclasses
import json
import math
import numbers
from collections.abc import Iterable
from typing import Any

from keras_t2t.configs import check_image_size, check_value

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
INTERPOLATIONS = ("area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5", "mitchellcubic", "nearest")
OUTPUTS = ("features", "logits", "probabilities", "scores")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image is prepared for a model.

    The image is resized to the smallest size that covers `image_size` divided by `crop_fraction`, and then center-cropped to
    `image_size`. Its pixels are scaled to [0, 1] and normalized to `(pixels - mean) / std`.

    Args:
        image_size: `(height, width)` in pixels.
        crop_fraction: Side length of the center crop as a fraction of the resized image, in (0, 1].
        interpolation: Method of `tf.image.resize`. It is used with antialiasing.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].

    Raises:
        ValueError: If an argument is invalid.
    """

    image_size: tuple[int, int] = (224, 224)
    crop_fraction: float = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        fraction = self.crop_fraction
        is_fraction = isinstance(fraction, numbers.Real) and 0 < fraction <= 1
        check_value(is_fraction, "crop_fraction", "a number in (0, 1]", fraction)
        check_value(self.interpolation in INTERPOLATIONS, "interpolation", f"one of {INTERPOLATIONS}", self.interpolation)
        mean, std = _as_floats(self.mean), _as_floats(self.std)
        is_mean = bool(mean) and 0 <= min(mean) <= max(mean) <= 1
        check_value(is_mean, "mean", "a number in [0, 1] for each channel, for pixels in [0, 1]", self.mean)
        is_std = len(std) == len(mean) and 0 < min(std) <= max(std) <= 1
        check_value(is_std, "std", "a number in (0, 1] for each channel, for pixels in [0, 1]", self.std)
        size = check_image_size(self.image_size)
        for name, value in (("image_size", size), ("crop_fraction", float(fraction)), ("mean", mean), ("std", std)):
            object.__setattr__(self, name, value)

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.mean)

    @property
    def scale(self) -> tuple[float, ...]:
        """Scale factor of each channel. The normalized image is `pixels * scale + offset`, with pixels in [0, 255]."""
        return tuple(1 / (255 * std) for std in self.std)

    @property
    def offset(self) -> tuple[float, ...]:
        """Offset of each channel; see `scale`."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def for_channels(self, channels: int) -> "Preprocessing":
        """Returns this preprocessing for `channels` channels. If that changes their number, pixels are scaled to [-1, 1]."""
        if channels == self.channels:
            return self
        return dataclasses.replace(self, mean=(0.5,) * channels, std=(0.5,) * channels)


def _as_floats(values):
    """Returns finite numbers as Python floats, or an empty tuple if `values` is anything else."""
    values = tuple(values) if isinstance(values, Iterable) else ()
    valid = all(isinstance(value, numbers.Real) and math.isfinite(value) for value in values)
    return tuple(map(float, values)) if valid else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A description of the inputs and outputs of a model. Exported files store it as JSON in their metadata.

    Args:
        preprocessing: How images are prepared.
        normalizes: Whether the model normalizes its images itself. If so, it expects pixels in [0, 255]. Otherwise, it expects
            normalized images.
        output: `"logits"`, which a softmax turns into probabilities, or a sigmoid if there is only one (log-probabilities are
            logits, too); `"probabilities"`, which sum to 1; `"scores"`, which need not sum to 1, such as those of a sigmoid; or
            `"features"`.
        labels: Names of the classes in the order of the outputs, or `None` if they are unknown.

    Raises:
        ValueError: If `output` is invalid.
    """

    preprocessing: Preprocessing
    normalizes: bool
    output: str
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_value(self.output in OUTPUTS, "output", f"one of {OUTPUTS}", self.output)

    def to_json(self) -> str:
        """Returns the spec as a JSON object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Returns the spec stored by `to_json`.

        Raises:
            ValueError: If `text` is not a spec in JSON format.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            labels = values.pop("labels")
            preprocessing = Preprocessing(**values.pop("preprocessing"))
            return cls(preprocessing=preprocessing, labels=None if labels is None else tuple(labels), **values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"Expected the JSON of a ModelSpec; received: {text[:200]!r}") from error
