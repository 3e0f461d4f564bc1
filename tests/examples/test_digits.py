"""The digits example trains, saves, loads, and predicts in a few epochs."""

import pathlib
import re
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.slow

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "digits.py"


def test_trains_saves_loads_and_predicts(tmp_path):
    output = tmp_path / "digits.keras"
    command = [sys.executable, str(SCRIPT), "--epochs", "3", "--output", str(output)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "1437 digits to train on, 360 held out" in text
    assert len(re.findall(r"^ +\d+ +\d +\d+\.\d% +\d( +wrong)?$", text, re.MULTILINE)) == 12
    accuracy = float(re.search(r"([\d.]+)% of the 360 held-out digits are classified correctly", text).group(1))
    assert accuracy > 50  # chance is 10
    assert keras.models.load_model(output).name == "t2t_vit_digits"
