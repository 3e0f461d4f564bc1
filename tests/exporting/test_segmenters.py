"""Exported segmenters in their own runtimes against the model, pixel by pixel."""

import numpy as np
import pytest

import keras_t2t
from tests.conftest import outputs_of
from tests.models.test_segmentation import SIZE, X, build

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file", ["model.tflite", "model.onnx", "saved_model"])
def test_export(tmp_path, file):
    model = build(image_size=SIZE, classes=("road", "sky", "tree"))
    report = keras_t2t.export(model, tmp_path / file, samples=X)
    assert report.agreement == 1 and report.difference < 1e-4
    assert "100% of the pixels have the same top class" in str(report)
    runtime = keras_t2t.open_exported(tmp_path / file)
    assert runtime.spec.labels == ("road", "sky", "tree")
    np.testing.assert_allclose(runtime.run(X[:1]), outputs_of(model, X[:1]), atol=1e-5)


def test_eight_bits_agree_pixel_by_pixel(tmp_path):
    model = build(image_size=SIZE, randomize=False)
    report = keras_t2t.export(model, tmp_path / "model.tflite", quantize="int8", samples=X, tolerance=0.5)
    received = keras_t2t.open_exported(tmp_path / "model.tflite").run(X[:1]).argmax(-1)
    expected = outputs_of(model, X[:1]).argmax(-1)
    assert report.per_pixel and report.images == 2
    assert (received == expected).mean() == pytest.approx(report.agreement, abs=0.1)
