"""What the package's own Dense and LayerNorm gain over those of Keras in T2TViT14, batch 8, graph mode.

    python benchmarks/layers.py                  TF_ENABLE_ONEDNN_OPTS=0 or 1 chooses the kernels

The models take turns on the same images; the figure is the median over the turns of the time with the layers of Keras over the
time with ours.
"""

import statistics

import keras
import numpy as np
import tensorflow as tf
from model import timed

import keras_t2t
from keras_t2t.layers import FastDense, FastLayerNorm


def forward(images, *replaced):
    """Returns a compiled forward pass in which some layers of ours compute as those of Keras do."""
    ours = {layer: layer.call for layer in replaced}
    for layer in replaced:
        layer.call = layer.__mro__[1].call
    try:
        model = keras_t2t.T2TViT14(weights=None, include_preprocessing=False)
        function = tf.function(lambda: model(images, training=False))
        function()
    finally:
        for layer, call in ours.items():
            layer.call = call
    return function


def main(turns=20):
    keras.utils.set_random_seed(0)
    images = tf.constant(np.random.default_rng(0).standard_normal((8, 224, 224, 3)), "float32")
    functions = {
        "ours": forward(images),
        "Dense of Keras": forward(images, FastDense),
        "LayerNorm of Keras": forward(images, FastLayerNorm),
        "both of Keras": forward(images, FastDense, FastLayerNorm),
    }
    times = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            times[name].append(timed(function))
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["ours"], strict=True))
        print(f"{name:20}{1000 * statistics.median(values):8.0f} ms{ratio:8.2f} times ours")


if __name__ == "__main__":
    main()
