"""Bilinear resizing of a feature map to the height and width of another tensor."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import NOT_QUANTIZED, check_rank, precise_dtype
from keras_t2t.layers.interpolation import interpolation_matrix, linear


@keras.saving.register_keras_serializable("keras_t2t")
class ResizeLike(keras.Layer):
    """Resizes a feature map to the height and width of another tensor, bilinearly with half-pixel centers.

    The sizes may be unknown when the model is built. The layer computes in at least float32.

    Call arguments:
        x: Tensor `(B, h, w, D)`.
        like: Tensor `(B, H, W, ...)`. Only its shape is used.

    Output shape:
        `(B, H, W, D)`.

    Raises:
        ValueError: If the tensors do not have four axes.

    Example:

    >>> layer = keras_t2t.layers.ResizeLike()
    >>> layer(keras.Input((14, 14, 64)), keras.Input((56, 60, 3))).shape
    (None, 56, 60, 64)
    """

    def build(self, x_shape: tuple, like_shape: tuple) -> None:
        for shape in (x_shape, like_shape):
            check_rank(self, shape, 4, "feature maps (batch, height, width, channels)")

    def call(self, x: Any, like: Any) -> Any:
        old, new = tuple(ops.shape(x)[1:3]), tuple(ops.shape(like)[1:3])
        if all(isinstance(side, int) for side in (*old, *new)) and old == new:
            return x
        dtype = precise_dtype(x.dtype)
        rows, columns = (interpolation_matrix(*sides, dtype, linear, (0, 1)) for sides in zip(old, new, strict=True))
        channels = x.shape[-1]
        # Matrix products, because tf2onnx converts TensorFlow's resizing to factors, which give wrong sizes after rounding.
        with keras.name_scope(NOT_QUANTIZED):
            y = ops.matmul(rows, ops.reshape(ops.cast(x, dtype), (-1, old[0], old[1] * channels)))  # (B, H, w * D)
            y = ops.matmul(columns, ops.reshape(y, (-1, old[1], channels)))  # (B * H, W, D)
        return ops.cast(ops.reshape(y, (-1, *new, channels)), x.dtype)

    def compute_output_shape(self, x_shape: tuple, like_shape: tuple) -> tuple:
        return (x_shape[0], *like_shape[1:3], x_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # without this method, Keras would refuse a `dtype` that is a `keras.DTypePolicy`
