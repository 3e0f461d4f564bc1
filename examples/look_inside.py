"""Draws all there is to see of a model and a photograph: attention, evidence, features, redundancy, cost.

    python examples/look_inside.py
    python examples/look_inside.py photograph.jpg --size 192 288 --weights runs/flowers/model.keras --against vit_small_16

By default the model is `T2TViTTiny32(weights="cifar10")`, which comes with the package, and the photograph one of a horse that
it was not trained on; the pictures go to `runs/look_inside`. It takes a quarter of a minute on 2 cores.
"""

import argparse
import pathlib

import numpy as np

import keras_t2t
from keras_t2t import analysis
from keras_t2t.cli.analysis import SIZES, as_input, open_model, view
from keras_t2t.cli.weights import class_labels
from keras_t2t.data import evaluation_image

PHOTOGRAPH = pathlib.Path(__file__).parent / "images" / "horse.jpg"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", nargs="?", type=pathlib.Path, default=PHOTOGRAPH)
    parser.add_argument(
        "--weights", default="t2t_vit_tiny_32:cifar10", help="VARIANT:WEIGHTS, a .keras file, or any checkpoint"
    )
    parser.add_argument("--size", type=int, nargs=2, help="height and width for the features, which any size has")
    parser.add_argument("--against", help="another model to compare with, of random weights if it is the name of a variant")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/look_inside"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    model = open_model(options.weights)
    photograph = view(options.photograph, model)
    images = as_input(model, photograph[None])
    scores = model.predict_on_batch(images)[0]
    label = class_labels(keras_t2t.labels_of(model), len(scores))[np.argmax(scores)]
    title = f"{model.name}, {options.photograph.name}"

    panels = analysis.attention_panels(model, images, label)
    analysis.draw_overlays(photograph, panels, options.output / "attention.png", title)

    large = evaluation_image(options.photograph, options.size or model.input_shape[1:3], crop=1.0)
    maps = analysis.feature_maps(model, as_input(model, large[None]), blocks=["block0", "block1"])
    first = {name: values[0] for name, values in maps.items() if name != "final"}
    analysis.draw_features(large, first, options.output / "features.png", title)

    models = [model, *([open_model(options.against)] if options.against else [])]
    sets = [as_input(one, view(options.photograph, one)[None]) for one in models]
    analysis.draw_comparison(analysis.compare(models, sets), options.output / "redundancy.png")

    counts = analysis.growth(keras_t2t.config_of(model), SIZES)
    analysis.draw_growth(SIZES, counts, options.output / "cost.png")
    print(f"{options.photograph.name} is taken for {label}; the pictures are in {options.output}")


if __name__ == "__main__":
    main()
