"""The TensorFlow functions that every format is converted from."""

from typing import Any

import keras

INPUT = "images"
"""Name of the input in every exported file. The output is named after `ModelSpec.output`."""


def inference_function(model: keras.Model) -> Any:
    """Returns a TensorFlow function from images `(B, H, W, C)` of any dtype to the output of a model."""
    import tensorflow as tf

    def infer(images):
        return model(tf.cast(images, model.input.dtype), training=False)

    return tf.function(infer, autograph=False)


def frozen_function(model: keras.Model, batch_size: int | None, input_dtype: str = "float32") -> Any:
    """Returns a concrete function with the weights of a model as constants.

    It takes images `(B, H, W, C)` and returns a list with one tensor. Without constants, a converted TFLite file would have no
    weights.

    Args:
        model: A model with a fixed image size.
        batch_size: Number of images in a batch, or `None` for any number.
        input_dtype: `"float32"` or `"uint8"`.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((batch_size, *model.input_shape[1:]), input_dtype, name=INPUT)
    return convert_variables_to_constants_v2(inference_function(model).get_concrete_function(spec))
