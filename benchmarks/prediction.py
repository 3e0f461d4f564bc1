"""Overhead of each way to call a model on one image, compared with the model's compiled graph.

    python -m benchmarks.prediction
    python -m benchmarks.prediction --model t2t_vit_14

The weights of T2TViTTiny32 are those for CIFAR-10, and those of other models are random. The calls take turns, and the figures
are medians. `model.predict` of an empty model, which returns its input, is the overhead of Keras alone.
"""

import argparse
import statistics

import keras
import tensorflow as tf

import keras_t2t
from benchmarks.harness import in_turns
from keras_t2t import assets


def main(turns: int = 30) -> None:
    """Prints the median time of each way, and the difference from the compiled graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=keras_t2t.VARIANTS, default="t2t_vit_tiny_32")
    variant = parser.parse_args().model
    constructor = getattr(keras_t2t, keras_t2t.VARIANTS[variant].constructor)
    model = constructor(weights="cifar10" if variant == "t2t_vit_tiny_32" else None)
    empty = keras.Sequential([keras.Input(model.input_shape[1:]), keras.layers.Identity()])
    photo = assets.folder("images") / "frog.jpg"
    images = keras_t2t.load_image(photo, model)
    graph = tf.function(lambda images: model(images, training=False), autograph=False)
    ways = {
        "compiled graph": lambda: graph(images).numpy(),
        "model.predict_on_batch": lambda: model.predict_on_batch(images),
        "model.predict": lambda: model.predict(images, verbose=0),
        "... of an empty model": lambda: empty.predict(images, verbose=0),
        "model(images), eager": lambda: keras.ops.convert_to_numpy(model(images, training=False)),
        "keras_t2t.load_image": lambda: keras_t2t.load_image(photo, model),
        "keras_t2t.predict_images": lambda: keras_t2t.predict_images(model, [photo]),
    }
    medians = [statistics.median(times) for times in zip(*in_turns(*ways.values(), turns=turns), strict=True)]
    for name, seconds in zip(ways, medians, strict=True):
        print(f"{name:26}{1e3 * seconds:8.1f} ms{1e3 * (seconds - medians[0]):+9.1f} ms")


if __name__ == "__main__":
    main()
