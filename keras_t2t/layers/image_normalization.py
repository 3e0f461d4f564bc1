"""The layer that normalizes images and stores the preprocessing of the model."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import check_rank, layer_path, precise_dtype
from keras_t2t.preprocessing import Preprocessing


@keras.saving.register_keras_serializable("keras_t2t")
class ImageNormalization(keras.Layer):
    """Normalizes images, and stores the model's `Preprocessing` so that it is saved with the model.

    Args:
        preprocessing: A `Preprocessing`, or its fields as a dictionary.
        enabled: Whether to normalize. If `False`, the layer expects normalized images and only casts them to its compute dtype.
            It stores `preprocessing` in either case.

    Input shape:
        `(B, H, W, C)` with an integer or floating-point dtype, and with values in [0, 255] if `enabled` is `True`.

    Output shape:
        Same as the input shape. If `enabled` is `True`, the values are `(pixels / 255 - mean) / std` for each channel.
        They are computed in at least float32, and have the layer's compute dtype.

    Raises:
        ValueError: If the number of channels does not match `preprocessing`.

    Example:

    >>> layer = keras_t2t.layers.ImageNormalization(keras_t2t.Preprocessing(mean=(0.5,), std=(0.5,)))
    >>> float(layer(np.full((1, 2, 2, 1), 255))[0, 0, 0, 0])
    1.0
    """

    def __init__(self, preprocessing: Preprocessing | dict[str, Any], enabled: bool = True, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # autocasting would round pixels to 16 bits
        self.preprocessing = Preprocessing(**preprocessing) if isinstance(preprocessing, dict) else preprocessing
        self.enabled = enabled

    def build(self, input_shape: tuple) -> None:
        check_rank(self, input_shape, 4, "images (batch, height, width, channels)")
        if input_shape[-1] != self.preprocessing.channels:
            raise ValueError(
                f"{layer_path(self)}: expected images with {self.preprocessing.channels} channels, like `mean`; "
                f"received: input_shape={tuple(input_shape)}"
            )

    def call(self, images: Any) -> Any:
        if not self.enabled:
            return ops.cast(images, self.compute_dtype)
        images = ops.cast(images, precise_dtype(self.compute_dtype))
        scale, offset = (ops.cast(values, images.dtype) for values in (self.preprocessing.scale, self.preprocessing.offset))
        return ops.cast(images * scale + offset, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        fields = {name: getattr(self.preprocessing, name) for name in self.preprocessing.__dataclass_fields__}
        return {**super().get_config(), "preprocessing": fields, "enabled": self.enabled}
