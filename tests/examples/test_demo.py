"""The demo names its photographs and learns digits, for one epoch here."""

import re

import numpy as np

import keras_t2t
from examples import demo


def test_demo(tmp_path, capsys):
    demo.main(["--epochs", "1", "--output", str(tmp_path)])
    output = capsys.readouterr().out
    rows = re.findall(r"^  (\w+)\.jpg +(\w+) +([\d.]+)%", output, re.MULTILINE)
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    images = keras_t2t.data.load_images(demo.PHOTOGRAPHS, model)
    for path, scores, (name, seen, likelihood) in zip(demo.PHOTOGRAPHS, model(images), rows, strict=True):
        # Which of them it takes for what they are, tests/weights/test_registry.py says.
        assert (name, seen) == (path.stem, keras_t2t.labels_of(model)[np.argmax(scores)])
        assert abs(float(likelihood) - 100 * np.max(scores)) < 0.1
    assert len(rows) == 10
    assert float(re.search(r"Held-out digits read correctly: ([\d.]+)%", output)[1]) >= 30
    assert (tmp_path / "model.keras").exists()
