"""The `weights` argument of the constructors: initial weights, and what they say about the images."""

import contextlib
import functools
import os

import keras

from keras_t2t.configs import T2TConfig, token_grid
from keras_t2t.errors import CheckpointError, did_you_mean, did_you_mean_file
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.registry import PretrainedWeights, pretrained_weights_of
from keras_t2t.variants import find_variant, variant_of
from keras_t2t.weights.architecture import infer_architecture
from keras_t2t.weights.loading import assign
from keras_t2t.weights.pretrained import load_pretrained
from keras_t2t.weights.reading import Checkpoint, read_checkpoint


class InitialWeights:
    """Pretrained weights, a file, or nothing, for the initialization of a model.

    Args:
        config: Configuration of the model.
        weights: The name of pretrained weights of the variant with this configuration, the path of a file, or `None`.

    Attributes:
        pretrained: The pretrained weights, or `None`.

    Raises:
        ValueError: If `weights` is neither the name of pretrained weights nor a file.
    """

    def __init__(self, config: T2TConfig, weights: str | os.PathLike | None):
        name = variant_of(config)
        self._config, self._weights = config, weights
        self._variant = None if name is None else find_variant(name)
        self.pretrained = _find_pretrained(weights, name)

    def load(self, model: keras.Model) -> None:
        """Loads the weights into a model, if there are any.

        Raises:
            CheckpointError: If the file cannot be read or does not fit the model.
            DownloadError: See `load_pretrained`.
        """
        if self.pretrained:
            load_pretrained(model, self.pretrained)
        elif self._weights is not None:
            assign(model, self._file or read_checkpoint(self._weights))

    @functools.cached_property
    def _file(self) -> Checkpoint | None:
        if self._weights is None or self.pretrained:
            return None
        try:
            return read_checkpoint(self._weights)
        except CheckpointError:
            return None  # `load` reports the error later

    @property
    def image_size(self) -> int:
        """Default height and width of the images."""
        if self.pretrained:
            return self.pretrained.image_size
        return self._variant.image_size if self._variant else 224

    @property
    def preprocessing(self) -> Preprocessing:
        """Default preprocessing of the images."""
        if self.pretrained:
            return self.pretrained.preprocessing
        if self._file and self._file.preprocessing:
            return self._file.preprocessing
        if self._variant:
            return Preprocessing(image_size=(self.image_size,) * 2, crop_fraction=self._variant.crop_fraction)
        return Preprocessing()

    def position_grid(self, size: tuple[int | None, int | None]) -> tuple[int, int]:
        """Returns the token grid `(h, w)` of the position table. For unknown `size`, it is that of the table in the weights."""
        if self._file and None in size:
            with contextlib.suppress(CheckpointError):  # `load` reports the error later
                return self._file.position_grid or infer_architecture(self._file.arrays, self._config).position_grid
        height, width = (side or self.image_size for side in size)
        return token_grid(self._config.soft_splits, height, width)


def _find_pretrained(weights: str | os.PathLike | None, variant: str | None) -> PretrainedWeights | None:
    """Returns the pretrained weights called `weights`, or `None` if `weights` is `None` or the path of a file."""
    known = pretrained_weights_of(variant)
    if weights is None or (isinstance(weights, (str, os.PathLike)) and weights not in known and os.path.isfile(weights)):
        return None
    if not isinstance(weights, str) or weights not in known:
        is_path = isinstance(weights, (str, os.PathLike)) and (os.path.dirname(weights) or os.path.splitext(weights)[1])
        missing = f"There is no file {weights}. " if is_path and not os.path.exists(weights) else ""
        names = "".join(f"{name!r} ({'shipped' if entry.path else 'published'}), " for name, entry in known.items())
        raise ValueError(
            f"{missing}The `weights` argument should be either `None` (random initialization), {names}or the path to the "
            "weights file to be loaded. "
            f"Received: weights={weights}{did_you_mean(weights, known) or did_you_mean_file(str(weights))}"
        )
    return known[weights]
