"""The demo classifies its sample photos and learns digits in one epoch, without messages of TensorFlow."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import keras_t2t
from examples import demo
from tests.pages import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def script(tmp_path):
    """A copy of ./scripts/demo that finds its environment set up."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "demo", tmp_path / "scripts")
    (tmp_path / "scripts" / "setup").symlink_to("/bin/true")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path / "scripts" / "demo"


def test_demo(script, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [script, "--epochs", "1", "--output", tmp_path / "run"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    rows = re.findall(r"^  (\w+)\.jpg +(\w+) +([\d.]+)%", result.stdout, re.MULTILINE)
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    images = keras_t2t.data.load_images(demo.PHOTOS, model)
    for path, scores, (name, label, probability) in zip(demo.PHOTOS, model(images), rows, strict=True):
        # tests/weights/test_registry.py checks which of them are correct.
        assert (name, label) == (path.stem, keras_t2t.labels_of(model)[np.argmax(scores)])
        assert abs(float(probability) - 100 * np.max(scores)) < 0.1
    assert len(rows) == 10
    assert float(re.search(r"Held-out digits classified correctly: ([\d.]+)%", result.stdout)[1]) >= 30
    assert (tmp_path / "run" / "model.keras").exists()
