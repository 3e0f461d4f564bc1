"""Speed of T2TViT14 with the package's own dense layer and LayerNorm versus Keras', at batch size 8 in graph mode.

    python -m benchmarks.layers                  set TF_ENABLE_ONEDNN_OPTS to 0 or 1 to choose the kernels

The models take turns on the same images. The ratio is the time with Keras layers divided by the time with the layers of this
package (the median over all turns).
"""

import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_t2t
from benchmarks.harness import in_turns
from keras_t2t.layers import FastDense, FastLayerNorm


def forward(images: tf.Tensor, *replaced: Any) -> Callable[[], np.ndarray]:
    """Returns a compiled forward pass in which layers of the `replaced` classes compute as their Keras base classes do."""
    calls = {layer: layer.call for layer in replaced}
    for layer in replaced:
        layer.call = layer.__mro__[1].call
    try:
        model = keras_t2t.T2TViT14(weights=None, include_preprocessing=False)
        function = tf.function(lambda: model(images, training=False))
        function()
    finally:
        for layer, call in calls.items():
            layer.call = call
    return lambda: function().numpy()


def main(turns: int = 20) -> None:
    """Prints the median time with each choice of layers."""
    keras.utils.set_random_seed(0)
    images = tf.constant(np.random.default_rng(0).standard_normal((8, 224, 224, 3)), "float32")
    functions = {
        "keras_t2t": forward(images),
        "Keras Dense": forward(images, FastDense),
        "Keras LayerNorm": forward(images, FastLayerNorm),
        "both of Keras": forward(images, FastDense, FastLayerNorm),
    }
    times = np.array(in_turns(*functions.values(), turns=turns))  # (turns, functions)
    for name, seconds in zip(functions, times.T, strict=True):
        ratio = statistics.median(seconds / times[:, 0])
        print(f"{name:20}{1000 * statistics.median(seconds):8.0f} ms{ratio:8.2f} times keras_t2t")


if __name__ == "__main__":
    main()
