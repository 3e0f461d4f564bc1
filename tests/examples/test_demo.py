"""The demo classifies its sample photos and learns digits in one epoch."""

import re

import numpy as np
import pytest

import keras_t2t
from examples import demo

pytestmark = pytest.mark.slow


def test_demo(tmp_path, capsys):
    demo.main(["--epochs", "1", "--output", str(tmp_path)])
    output = capsys.readouterr().out
    rows = re.findall(r"^  (\w+)\.jpg +(\w+) +([\d.]+)%", output, re.MULTILINE)
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    images = keras_t2t.data.load_images(demo.PHOTOS, model)
    for path, scores, (name, label, probability) in zip(demo.PHOTOS, model(images), rows, strict=True):
        # tests/weights/test_registry.py checks which of them are correct.
        assert (name, label) == (path.stem, keras_t2t.labels_of(model)[np.argmax(scores)])
        assert abs(float(probability) - 100 * np.max(scores)) < 0.1
    assert len(rows) == 10
    assert float(re.search(r"Held-out digits classified correctly: ([\d.]+)%", output)[1]) >= 30
    assert (tmp_path / "model.keras").exists()
