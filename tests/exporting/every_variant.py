"""Exports every variant to every format, with square and other images and at 384 pixels. The tests use small models instead.

    python -m tests.exporting.every_variant [VARIANT ...]

Models have two blocks and seeded weights. `export` raises if a file differs too much; the differences are printed.
"""

import dataclasses
import pathlib
import sys
import tempfile

import keras

import keras_t2t
from keras_t2t.variants import VARIANTS
from tests.conftest import seeded_parameters

SIZES = ((224, 224), (160, 256), (384, 384))
FILES = ("model.tflite", "model.onnx", "model.xml", "model")


def main():
    for variant in sys.argv[1:] or VARIANTS:
        for size in SIZES if variant != "t2t_vit_tiny_32" else ((32, 32), (24, 40), (64, 64)):
            config = VARIANTS[variant].config
            config = dataclasses.replace(config, depth=(1, 2) if config.block == "dense" else 2)
            model = keras_t2t.T2TViT(config, input_shape=(*size, 3), classes=11)
            keras_t2t.load_checkpoint(model, seeded_parameters(config, size, classes=11))
            with tempfile.TemporaryDirectory() as folder:
                for file in FILES:
                    report = keras_t2t.export(model, pathlib.Path(folder) / file)
                    print(f"{variant:20} {size[0]}x{size[1]}  {report.format:12} {report.difference:.1e}", flush=True)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
