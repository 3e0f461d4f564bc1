"""The fine-tuning example learns to distinguish two colors."""

import re

import keras
import numpy as np
import PIL.Image
import pytest

from examples import fine_tune

pytestmark = pytest.mark.slow


def test_fine_tune(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, color in {"blue": (10, 20, 200), "red": (200, 10, 20)}.items():
        (tmp_path / "colors" / name).mkdir(parents=True)
        for index in range(30):
            image = np.clip(rng.normal(color, 20, (32, 32, 3)), 0, 255).astype("uint8")
            PIL.Image.fromarray(image).save(tmp_path / "colors" / name / f"{index}.png")
    arguments = ["--output", str(tmp_path / "run"), "--model", "t2t_vit_tiny_32", "--weights", "none", "--epochs", "6"]
    fine_tune.main([str(tmp_path / "colors"), *arguments])
    output = capsys.readouterr().out
    assert float(re.search(r"with the classes blue, red\nHeld-out accuracy ([\d.]+)%", output)[1]) >= 75
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 2)
