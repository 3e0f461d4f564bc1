"""Compares how redundant the models of a study are: means of several metrics over the seeds, with 95% intervals.

    python examples/study/redundancy.py runs/study --data cifar10 --output runs/study

Reads the models that `keras-t2t study` or `study_on_accelerator.py --save` has trained on all images, and writes
`redundancy.md` and `redundancy.png`.
"""

import argparse
import pathlib
import sys

import keras
import numpy as np

import keras_t2t
from keras_t2t.analysis import compare, draw_comparison
from keras_t2t.data import from_folder
from keras_t2t.studies import confidence_interval
from keras_t2t.variants import REFERENCE_NAMES, STUDY_CONFIGS

METRICS = {
    "cosine": "cosine similarity of heads",
    "divergence": "divergence of heads (bits)",
    "entropy": "attention entropy (bits)",
    "distance": "attention distance (pixels)",
    "cka": "CKA of adjacent blocks",
}


def read_images(folder, count):
    """Returns every n-th test image, `count` of them, as float32."""
    paths = from_folder(folder)["val"].images
    paths = paths[:: max(len(paths) // count, 1)][:count]
    return np.stack([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths])


def load(folder):
    """Returns the model of a training run, or `None` if the run has not saved one."""
    if (folder / "model.keras").exists():
        return keras.models.load_model(folder / "model.keras")
    if not (folder / "ema.weights.h5").exists():
        return None
    name = folder.parents[1].name
    model = keras_t2t.T2TViT(STUDY_CONFIGS[name], weights=None, classes=10, input_shape=(32, 32, 3), name=name)
    model.load_weights(folder / "ema.weights.h5")
    return model


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=pathlib.Path, help="folder of the study")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with test/CLASS/")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args(arguments)

    images = read_images(options.data, options.images)
    lines = [["model", *METRICS.values()], ["---"] * (1 + len(METRICS))]
    drawn = []
    for folder in sorted(options.study.glob("*/fraction-1")):
        name = folder.parent.name
        runs = [] if name in REFERENCE_NAMES else sorted(folder.glob("seed-*"))
        models = [model for model in map(load, runs) if model is not None]
        if not models:
            continue
        comparisons = compare(models, images, batch_size=50)
        drawn.append(comparisons[0])
        summaries = [comparison.summary() for comparison in comparisons]
        intervals = [confidence_interval([summary[metric] for summary in summaries]) for metric in METRICS]
        lines.append([name, *(f"{mean:.3g} ± {half_width:.2g}" for mean, half_width in intervals)])
    if not drawn:
        sys.exit(f"Found no T2T-ViT with its weights in {options.study}")
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "redundancy.md").write_text(table, encoding="utf-8")
    draw_comparison(drawn, options.output / "redundancy.png")
    print(table, end="")


if __name__ == "__main__":
    main()
