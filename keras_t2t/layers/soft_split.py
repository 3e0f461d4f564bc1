"""The soft split: overlapping windows of a token grid, each flattened into one token."""

from typing import Any

import keras
from keras import ops

from keras_t2t.configs import check_soft_splits, token_grid
from keras_t2t.layers.common import check_rank


def extract_patches(x: Any, kernel_size: int, strides: int) -> Any:
    """Returns the windows that lie entirely inside `x`, each flattened in (row, column, channel) order.

    The result equals that of `tf.image.extract_patches`. On TensorFlow, it is computed by a single gather, which is about as
    fast (`benchmarks/layers.py` compares them) and also exists in TFLite and ONNX.

    Args:
        x: Tensor `(B, H, W, C)`.
        kernel_size: Side length of the square window.
        strides: Step between windows.

    Returns:
        Tensor `(B, h, w, kernel_size * kernel_size * C)` with `h = (H - kernel_size) // strides + 1`.
    """
    _, height, width, channels = ops.shape(x)
    h, w = (height - kernel_size) // strides + 1, (width - kernel_size) // strides + 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        offsets = tf.range(kernel_size)
        rows = (strides * tf.range(h)[:, None] + offsets)[:, None, :, None]  # (h, 1, k, 1)
        columns = (strides * tf.range(w)[:, None] + offsets)[None, :, None, :]  # (1, w, 1, k)
        pixels = tf.reshape(x, (-1, height * width, channels))
        windows = gather_pixels(pixels, tf.reshape(width * rows + columns, [-1]))  # (B, h * w * k * k, C)
        return tf.reshape(windows, (-1, h, w, kernel_size**2 * channels))
    # Slices copy values exactly. `keras.ops.image.extract_patches` runs a convolution, which rounds on TPUs and recent GPUs.
    rows, columns = height - kernel_size + 1, width - kernel_size + 1
    offsets = [(i, j) for i in range(kernel_size) for j in range(kernel_size)]
    return ops.concatenate([x[:, i : i + rows : strides, j : j + columns : strides] for i, j in offsets], axis=-1)


def gather_pixels(pixels: Any, indices: Any) -> Any:
    """Returns `tf.gather(pixels, indices, axis=1)` with a gradient that also works for an empty batch.

    An empty batch occurs if the last batch is too small for all replicas of a `tf.distribute` strategy. TensorFlow's own
    gradients of `tf.gather` and of `tf.image.extract_patches` fail there.

    Args:
        pixels: Tensor `(B, N, C)`.
        indices: Tensor `(n,)`, integers below N.

    Returns:
        Tensor `(B, n, C)`.
    """
    import tensorflow as tf

    count = tf.shape(pixels)[1]

    @tf.custom_gradient
    def gather(pixels):
        def gradient(upstream):
            sums = tf.math.unsorted_segment_sum(tf.transpose(upstream, (1, 0, 2)), indices, count)  # (N, B, C)
            return tf.transpose(sums, (1, 0, 2))

        return tf.gather(pixels, indices, axis=1), gradient

    return gather(pixels)


@keras.saving.register_keras_serializable("keras_t2t")
class SoftSplit(keras.Layer):
    """Cuts a grid of tokens, or an image, into overlapping windows and flattens each window into one longer token.

    See section 3.1, "Soft split", of the paper. Corresponds to `nn.Unfold` in `models/t2t_vit.py` of the reference
    implementation, which flattens windows in (channel, row, column) order. This layer uses (row, column, channel) order.

    Args:
        kernel_size: Side length of the square window, in tokens.
        strides: Step between windows, in tokens.
        padding: Number of zeros added on each side, in tokens.

    Input shape:
        `(B, H, W, C)` with any dtype. H and W may differ, and may be unknown when the model is built.

    Output shape:
        `(B, h, w, kernel_size * kernel_size * C)` with `h = (H + 2 * padding - kernel_size) // strides + 1`.

    Raises:
        ValueError: If the arguments are invalid, or if the input does not have 4 axes or is too small for one window.

    Example:

    >>> images = keras.Input((224, 224, 3))
    >>> keras_t2t.layers.SoftSplit(kernel_size=7, strides=4, padding=2)(images).shape
    (None, 56, 56, 147)
    """

    def __init__(self, kernel_size: int, strides: int, padding: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        ((self.kernel_size, self.strides, self.padding),) = check_soft_splits([(kernel_size, strides, padding)])

    def call(self, x: Any) -> Any:
        self.compute_output_shape(x.shape)  # checks the shape
        if self.padding:
            x = ops.pad(x, [(0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0)])
        return extract_patches(x, self.kernel_size, self.strides)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        check_rank(self, input_shape, 4, "a token grid (batch, height, width, channels)")
        batch, height, width, channels = input_shape
        grid = token_grid([(self.kernel_size, self.strides, self.padding)], height, width)
        return (batch, *grid, self.kernel_size**2 * channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }
