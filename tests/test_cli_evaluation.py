"""The evaluate command takes every kind of classifier."""

import re

import numpy as np
import pytest

import keras_t2t
from tests import test_cli
from tests.conftest import SMALL_CONFIGS, mostly_slow

run = test_cli.run
SIZE = (31, 46)
RUNTIMES = {
    "model.keras": "Keras, tensorflow",
    "model.tflite": "LiteRT",
    "model.onnx": "ONNX Runtime",
    "model.xml": "OpenVINO",
    "saved_model": "TensorFlow",
}


def color_model():
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), input_shape=(*SIZE, 3))
    return keras_t2t.replace_head(model, ["blue", "red"])


@pytest.mark.parametrize("file", mostly_slow(RUNTIMES, "model.onnx"))
def test_models_and_exported_files(run, tmp_path, file):
    test_cli.write_colors(tmp_path / "colors", size=SIZE)
    model = color_model()
    model.save(file) if file == "model.keras" else keras_t2t.export(model, file)
    status, output, error = run("evaluate", file, "--data", "colors", "--split", "train", "--crop-fraction", 1)
    assert status == 0, error
    source = keras_t2t.data.from_folder("colors")["train"]
    colors = np.array([(10, 20, 200), (200, 10, 20)])[source.labels]
    numbers = [int(re.search(r"(\d)\.png", path)[1]) for path in source.images]
    pixels = colors[:, None, None] + np.array(numbers)[:, None, None, None] + np.zeros((*SIZE, 1))
    right = model.predict(pixels, verbose=0).argmax(1) == source.labels
    assert f"top-1 {right.mean():.4f}; 10 images in train\n" in output
    for label, name in enumerate(("blue", "red")):
        assert re.search(rf"│ {name} +│ 5 +│ {right[source.labels == label].mean():.4f} +│", output)
    speed = rf"\n[\d,.]+ images/s with {RUNTIMES[file]}, including reading and resizing\n$"
    assert re.search(speed, output)


def test_mistakes_show_before_the_work_starts(run, tmp_path):
    (tmp_path / "model.keras").write_text("no model")  # which is an error once it is opened
    error = run("evaluate", "model.keras", "--data", ".", "--picture", "confusion.jpg")[2]
    assert error == "Error: Expected the path of a .png file; received: confusion.jpg\n"
    assert not (tmp_path / "confusion.jpg").exists()


def test_features_are_no_classes(run, tmp_path):
    test_cli.write_colors(tmp_path / "colors")
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    keras_t2t.T2TViT(config, include_top=False, input_shape=(*SIZE, 3)).save("features.keras")
    error = run("evaluate", "features.keras", "--data", "colors")[2]
    assert error == "Error: Expected a classifier; features.keras returns features\n"
