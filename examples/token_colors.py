"""Draws a photo and its tokens: after the first stage and at the end of the backbone. Tokens with similar features have similar
colors.

    python examples/token_colors.py
    python examples/token_colors.py photo.jpg --size 320 480 --output tokens.png

The model is `T2TViTTiny32(weights="cifar10")`, whose weights are part of the package and were trained on 32x32 images. The
default photo comes with scikit-learn (`pip install ".[demo]"`). This takes about 10 seconds on 2 cores.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

import keras_t2t
from keras_t2t import analysis
from keras_t2t.data import read_view
from keras_t2t.figures import new_figure


def default_photo() -> pathlib.Path:
    import sklearn.datasets

    return pathlib.Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"


def principal_colors(features: np.ndarray) -> np.ndarray:
    """Maps features `(h, w, C)` to colors `(h, w, 3)` in [0, 1]: the first three principal components, in equal ranges."""
    centered = features.reshape(-1, features.shape[-1]) - features.mean((0, 1))
    _, _, components = np.linalg.svd(centered, full_matrices=False)
    components = components[:3] * np.sign(components[:3].sum(1, keepdims=True))  # the sign of a component is arbitrary
    colors = centered @ components.T
    low, high = np.percentile(colors, (2, 98), axis=0)
    return np.clip((colors - low) / (high - low), 0, 1).reshape(*features.shape[:2], 3)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=pathlib.Path)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 384), help="height and width of the photo for the model")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("tokens.png"), help="PNG file to write")
    options = parser.parse_args(arguments)

    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    preprocessing = dataclasses.replace(keras_t2t.preprocessing_of(model), image_size=tuple(options.size), crop_fraction=1.0)
    view = read_view(options.photo or default_photo(), preprocessing)
    maps = analysis.feature_maps(model, view[None], blocks=[])
    panels = {"photo": view / 255, **{level: principal_colors(values[0]) for level, values in maps.items()}}

    height, width = options.size
    figure = new_figure(4 * len(panels), 4 * height / width + 0.4)
    titles = ("photo", "tokens after the first stage", "tokens after the last block")
    for ax, title, pixels in zip(figure.subplots(1, len(panels)), titles, panels.values(), strict=True):
        ax.imshow(pixels, interpolation="nearest", extent=(0, width, height, 0))
        ax.set_title(f"{title}, {pixels.shape[0]}x{pixels.shape[1]}", fontsize=12, color="gray")
        ax.set_axis_off()
    figure.savefig(options.output, dpi=100, transparent=True)  # for light and dark pages
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
