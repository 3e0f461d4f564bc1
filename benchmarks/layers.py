"""Speed of T2TViT14 with the package's own soft split, dense layer and LayerNorm versus TensorFlow's and Keras', at batch 8.

    python -m benchmarks.layers                  set TF_ENABLE_ONEDNN_OPTS to 0 or 1 to choose the kernels
    python -m benchmarks.layers --train          a forward and backward pass instead of a forward pass
    python -m benchmarks.layers --xla            compiled with XLA, as in `model.fit`, instead of a plain graph

The models take turns on the same images. The ratio is the time with other layers divided by the time with the layers of this
package (the median over all turns).
"""

import argparse
import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import keras_t2t
from benchmarks.harness import in_turns
from keras_t2t.layers import FastDense, FastLayerNorm, SoftSplit, soft_split


def tensorflow_patches(x: Any, kernel_size: int, strides: int) -> Any:
    """Returns the same as `keras_t2t.layers.soft_split.extract_patches`."""
    window, step = [1, kernel_size, kernel_size, 1], [1, strides, strides, 1]
    return tf.image.extract_patches(x, window, step, [1, 1, 1, 1], "VALID")


@contextlib.contextmanager
def replaced(*parts: Any) -> Iterator[None]:
    """Replaces parts of the package: layer classes compute as their Keras base classes do, and `SoftSplit` with TensorFlow."""
    with contextlib.ExitStack() as stack:
        for part in parts:
            if part is SoftSplit:
                stack.enter_context(mock.patch.object(soft_split, "extract_patches", tensorflow_patches))
            else:
                stack.enter_context(mock.patch.object(part, "call", part.__mro__[1].call))
        yield


def compiled(images: tf.Tensor, train: bool, xla: bool, *parts: Any) -> Callable[[], np.ndarray]:
    """Returns a compiled pass of a new model in which some parts of the package are replaced."""
    with replaced(*parts):
        model = keras_t2t.T2TViT14(weights=None, include_preprocessing=False)

        def forward():
            return model(images, training=train)

        def forward_and_backward():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.math.log(forward()))
            return tf.add_n([tf.reduce_sum(gradient) for gradient in tape.gradient(loss, model.trainable_variables)])

        function = tf.function(forward_and_backward if train else forward, jit_compile=xla)
        function()
    return lambda: function().numpy()


def main() -> None:
    """Prints the median time with each choice of layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="measure a forward and backward pass")
    parser.add_argument("--xla", action="store_true", help="compile with XLA")
    parser.add_argument("--turns", type=int, default=20, help="number of turns")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    images = tf.constant(np.random.default_rng(0).standard_normal((8, 224, 224, 3)), "float32")
    choices = {
        "keras_t2t": (),
        "tf.image.extract_patches": (SoftSplit,),
        "Keras Dense": (FastDense,),
        "Keras LayerNorm": (FastLayerNorm,),
        "all of these": (SoftSplit, FastDense, FastLayerNorm),
    }
    functions = {name: compiled(images, options.train, options.xla, *parts) for name, parts in choices.items()}
    times = np.array(in_turns(*functions.values(), turns=options.turns))  # (turns, functions)
    for name, seconds in zip(functions, times.T, strict=True):
        ratio = statistics.median(seconds / times[:, 0])
        print(f"{name:26}{1000 * statistics.median(seconds):8.0f} ms{ratio:8.2f} times keras_t2t")


if __name__ == "__main__":
    main()
