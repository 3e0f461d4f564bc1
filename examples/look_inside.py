"""Draws everything the analysis package can show for a model and a photo: attention, evidence, features, redundancy and cost.

    python examples/look_inside.py
    python examples/look_inside.py photo.jpg --size 192 288 --model runs/flowers --against vit_small_16

The default model is `T2TViTTiny32(weights="cifar10")`, whose weights are part of the package. The default photo shows a horse
and was not used for training. The plots are written to `runs/look_inside`. This takes about 15 seconds on 2 cores.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import keras_t2t
from keras_t2t import analysis
from keras_t2t.cli.analysis import SIZES
from keras_t2t.cli.models import MODEL_HELP, open_model
from keras_t2t.data import as_input, read_view
from keras_t2t.models import pyramid_levels, spec_of

PHOTO = pathlib.Path(__file__).parent / "images" / "horse.jpg"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=pathlib.Path, default=PHOTO)
    parser.add_argument("--model", default="t2t_vit_tiny_32:cifar10", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--size", type=int, nargs=2, help="height and width for the feature maps (default: size of the model)")
    parser.add_argument("--against", help="second model for the comparison; the name of a variant means random weights")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/look_inside"), help="folder for the plots")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    model = open_model(options.model)
    preprocessing = keras_t2t.preprocessing_of(model)
    view = read_view(options.photo, preprocessing)
    images = keras_t2t.load_image(options.photo, model)
    ((label, probability),) = keras_t2t.predict_images(model, [options.photo], top=1)[0]
    title = f"{model.name}, {options.photo.name}"

    panels = analysis.attention_panels(model, images, label)
    prediction = f"{label}, probability {probability:.2f}"
    analysis.draw_overlays(view, panels, options.output / "attention.png", f"{title}: {prediction}")

    size = tuple(options.size or preprocessing.image_size)
    large_view = read_view(options.photo, dataclasses.replace(preprocessing, image_size=size, crop_fraction=1.0))
    maps = analysis.feature_maps(model, as_input(large_view[None], spec_of(model)), blocks=["block0", "block1"])
    final = pyramid_levels(keras_t2t.config_of(model).soft_splits)[-1]
    early_maps = {name: values[0] for name, values in maps.items() if name != final}
    analysis.draw_features(large_view, early_maps, options.output / "features.png", title)

    models = [model, *([open_model(options.against)] if options.against else [])]
    inputs = [keras_t2t.load_image(options.photo, each) for each in models]
    analysis.draw_comparison(analysis.compare(models, inputs), options.output / "redundancy.png")

    counts = analysis.growth(keras_t2t.config_of(model), SIZES)
    analysis.draw_growth(SIZES, counts, options.output / "cost.png")
    print(f"Top class of {options.photo.name}: {label}. Wrote the plots to {options.output}")


if __name__ == "__main__":
    main()
