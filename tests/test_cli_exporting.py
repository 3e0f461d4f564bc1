"""The commands `export` and `benchmark`, and other commands with exported files."""

import os
import re

import keras
import numpy as np
import onnx
import pytest

import keras_t2t
from keras_t2t import assets
from tests import test_cli
from tests.conftest import DATA, SMALL_CONFIGS, mostly_slow

run, photo = test_cli.run, test_cli.photo
SHIPPED = "t2t_vit_tiny_32:cifar10"


def rows(output):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line.startswith("│")]


@pytest.mark.parametrize(
    ("path", "arguments", "description"),
    [
        ("tiny.tflite", (), "tflite, "),
        *mostly_slow(
            [
                ("tiny.xml", ("--format", "openvino"), "openvino, "),
                ("tiny.tflite", ("--batch-size", 3, "--input-dtype", "uint8"), "tflite, "),
            ]
        ),
    ],
)
def test_export_then_predict(run, photo, path, arguments, description):
    """The exported file gives the same predictions as the model."""
    status, output, error = run("export", SHIPPED, "--output", path, *arguments)
    assert status == 0, error
    assert output.startswith(f"{path}: {description}")
    assert re.search(
        r"10 images: 100% have the same top class\n  logits differ by up to \d\.\de-\d\d of the largest logit\n", output
    )
    status, output, error = run("predict", path, photo, "--top", 10)
    assert status == 0, error
    assert output.startswith("photo.png:\n")
    received, expected = (dict(rows(text)) for text in (output, run("predict", SHIPPED, photo, "--top", 10)[1]))
    assert set(received) == set(keras_t2t.labels_of(keras_t2t.T2TViTTiny32(weights="cifar10")))
    assert {name: float(score) for name, score in received.items()} == pytest.approx(
        {name: float(score) for name, score in expected.items()}, abs=1.1e-4
    )


@pytest.mark.slow
def test_quantized_export(run, photo):
    calibration = ("--calibration", assets.folder("images"))
    for quantize in ("int8", "full_int8"):  # int8 uses these images for the comparison only
        status, output, error = run("export", SHIPPED, "--output", "x.tflite", "--quantize", quantize, *calibration, "--force")
        assert status == 0, error
        assert re.match(rf"x\.tflite: tflite, {quantize}, (0\.\d\d|1\.00) MB\n  10 images: \d+% have ", output)
        assert rows(run("predict", "x.tflite", photo)[1])[0][0] == (rows(run("predict", SHIPPED, photo)[1])[0][0])


@pytest.mark.slow
def test_export_of_a_checkpoint_without_labels_and_of_features(run):
    file = DATA / "checkpoints" / "t2t_tiny_half_bare.pth"
    assert run("export", file, "--output", "x.onnx")[0] == 0
    assert sorted(os.listdir()) == ["x.onnx"]
    small = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), include_top=False, input_shape=(31, 23, 3))
    small.save("features.keras")
    assert run("export", "features.keras", "--output", "features.onnx", "--opset", 17)[0] == 0
    assert [entry.version for entry in onnx.load("features.onnx").opset_import] == [17]


@pytest.mark.slow
def test_predict_normalizes_images_for_a_model_that_does_not(run, photo):
    """The model returns logits."""
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = keras_t2t.T2TViT(
        config, input_shape=(64, 48, 3), classes=4, include_preprocessing=False, classifier_activation=None
    )
    model.save("x.keras")
    expected = rows(run("predict", "x.keras", photo, "--top", 4)[1])
    for path in ("x.tflite", "x.onnx", "x"):
        assert run("export", "x.keras", "--output", path)[0] == 0
        received = rows(run("predict", path, photo, "--top", 4)[1])
        assert [name for name, _ in received] == [name for name, _ in expected]
        np.testing.assert_allclose([float(p) for _, p in received], [float(p) for _, p in expected], atol=1.1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--output", "x.pb"),
            "Expected --format to be one of saved_model, tflite, onnx, openvino; received: no --format and the path x.pb",
        ),
        (("--output", "x.tflite", "--format", "coreml"), "Expected --format to be one of .*; received: --format 'coreml'"),
        (("--output", "taken.onnx"), "taken.onnx already exists; replace it with --force"),
        (
            ("--output", "x.tflite", "--quantize", "int4"),
            "one of None, float16, int8, full_int8 for tflite; received: --quantize 'int4'. Did you mean int8",
        ),
        (
            ("--output", "x.tflite", "--quantize", "full_int8"),
            "Expected --calibration IMAGES if and only if --quantize 'full_int8'; received: none",
        ),
        (
            ("--output", "x.tflite", "--quantize", "full_int8", "--calibration", "empty"),
            "Expected a folder with images .* empty",
        ),
        (("--output", "x.tflite", "--quantize", "full_int8", "--calibration", "absent"), "There is no file or folder absent"),
        (("--output", "x", "--format", "tflit"), "received: --format 'tflit' and the path x. Did you mean tflite"),
        (
            ("--output", "x.tflite", "--opset", 13),
            "Expected --opset to be given only for onnx; received: --opset 13 and the format tflite",
        ),
        (
            ("--output", "x.onnx", "--batch-size", 3),
            "Expected --batch-size to be given only for tflite; the format is onnx",
        ),
        (("--output", "x.tflite", "--tolerance", 1e-12), "by .* of the largest logit, more than the tolerance of 1.0e-12"),
    ],
)
def test_export_errors_write_nothing(run, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.onnx").write_text("mine")
    status, output, error = run("export", SHIPPED, *arguments)
    assert (status, output) == (1, "")
    assert re.search(f"^Error: .*{message}.*\n$", error, re.MULTILINE)
    assert {"empty", "taken.onnx"} == {name for name in os.listdir(tmp_path) if name != "home"}
    assert (tmp_path / "taken.onnx").read_text() == "mine"


def test_export_rejects_models_not_built_by_keras_t2t(run):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]).save("x.keras")
    status, _, error = run("export", "x.keras", "--output", "x.tflite")
    assert status == 1
    assert "Error: Expected a model built by keras_t2t" in error


@pytest.mark.slow
def test_predict_rejects_models_that_are_not_classifiers(run, photo, tmp_path):
    small = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), include_top=False, input_shape=(31, 23, 3))
    keras_t2t.export(small, "features.onnx")
    assert run("predict", "features.onnx", photo)[2] == "Error: Expected a classifier; features.onnx returns features\n"
    assert run("predict", "absent.onnx", photo)[2].startswith("Error: Expected a file, a folder, or one of the variants")
    error = run("attention", "features.onnx", photo)[2]
    assert error == "Error: Expected a Keras model; features.onnx is an exported file\n"


@pytest.mark.slow
def test_benchmark(run, tmp_path):
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), input_shape=(31, 23, 3), classes=5)
    model.save("small.keras")
    keras_t2t.export(model, "[b]small.onnx")
    arguments = ("small.keras", "[b]small.onnx", "--batch", 3, "--batch", 2, "--seconds", 0.01, "--picture", "bars.png")
    status, output, error = run("benchmark", *arguments)
    assert status == 0, error
    assert re.search(r"model +┃ runtime +┃ latency, ms ┃ images/s at 3 ┃ images/s at 2 ┃ peak memory, MiB ┃ size, MB", output)
    table = rows(output)
    assert [row[:2] for row in table] == [["small.keras", "TensorFlow"], ["[b]small.onnx", "ONNX Runtime"]]
    assert all(float(cell) > 0 for row in table for cell in row[2:])
    assert table[1][6] == f"{os.path.getsize('[b]small.onnx') / 1e6:.2f}"
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert run("benchmark", "absent.onnx")[2].startswith("Error: Expected a file, a folder, or one of the variants")
    status, output, error = run("benchmark", "t2t_vit_tiny_32", "--seconds", 0.01)
    assert status == 0 and "t2t_vit_tiny_32 has random weights" in error
    assert rows(output)[0][:2] == ["t2t_vit_tiny_32.keras", "TensorFlow"]
