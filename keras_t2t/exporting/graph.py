"""The graph that every format is converted from: frozen, with the shapes that are wanted."""

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
    """Returns the concrete function of a model with its weights as constants: images `(B, H, W, C)` to a list of one tensor.

    A function that is not frozen would convert to a TFLite file without weights.

    Args:
        model: A model with a fixed image size.
        batch_size: Number of images in a batch; `None` for any.
        input_dtype: `"float32"` or `"uint8"`.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((batch_size, *model.input_shape[1:]), input_dtype, name=INPUT)
    return convert_variables_to_constants_v2(inference_function(model).get_concrete_function(spec))
