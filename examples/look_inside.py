"""Draws all there is to see of a model and a photograph: attention, evidence, features, redundancy, cost.

    python examples/look_inside.py
    python examples/look_inside.py photograph.jpg --size 192 288 --model runs/flowers --against vit_small_16

By default the model is `T2TViTTiny32(weights="cifar10")`, which comes with the package, and the photograph one of a horse that
it was not trained on; the pictures go to `runs/look_inside`. It takes a quarter of a minute on 2 cores.
"""

import argparse
import dataclasses
import pathlib

import keras_t2t
from keras_t2t import analysis
from keras_t2t.cli.analysis import SIZES
from keras_t2t.cli.models import MODEL_HELP, open_model
from keras_t2t.data import as_input, read_view
from keras_t2t.models import spec_of

PHOTOGRAPH = pathlib.Path(__file__).parent / "images" / "horse.jpg"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", nargs="?", type=pathlib.Path, default=PHOTOGRAPH)
    parser.add_argument("--model", default="t2t_vit_tiny_32:cifar10", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--size", type=int, nargs=2, help="height and width for the features, which any size has")
    parser.add_argument("--against", help="another model to compare with, of random weights if it is the name of a variant")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/look_inside"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    model = open_model(options.model)
    preprocessing = keras_t2t.preprocessing_of(model)
    photograph = read_view(options.photograph, preprocessing)
    images = keras_t2t.load_image(options.photograph, model)
    ((label, _),) = keras_t2t.predict_images(model, [options.photograph], top=1)[0]
    title = f"{model.name}, {options.photograph.name}"

    panels = analysis.attention_panels(model, images, label)
    analysis.draw_overlays(photograph, panels, options.output / "attention.png", title)

    size = tuple(options.size or preprocessing.image_size)
    large = read_view(options.photograph, dataclasses.replace(preprocessing, image_size=size, crop_fraction=1.0))
    maps = analysis.feature_maps(model, as_input(large[None], spec_of(model)), blocks=["block0", "block1"])
    first = {name: values[0] for name, values in maps.items() if name != "final"}
    analysis.draw_features(large, first, options.output / "features.png", title)

    models = [model, *([open_model(options.against)] if options.against else [])]
    sets = [keras_t2t.load_image(options.photograph, one) for one in models]
    analysis.draw_comparison(analysis.compare(models, sets), options.output / "redundancy.png")

    counts = analysis.growth(keras_t2t.config_of(model), SIZES)
    analysis.draw_growth(SIZES, counts, options.output / "cost.png")
    print(f"{options.photograph.name} is taken for {label}; the pictures are in {options.output}")


if __name__ == "__main__":
    main()
