import csv
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def keras_t2t(*arguments):
    """Runs a command and returns what it prints. It may not print messages of TensorFlow or other libraries."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "keras_t2t", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_from_a_folder_of_pictures_to_a_tflite_file(project):
    assert keras_t2t("data", "check", "photos").splitlines() == [
        "train: 38 images in 2 classes, 0 cannot be read",
        "val: 10 images in 2 classes, 0 cannot be read",
    ]
    train = ["train", "--model", "t2t_vit_tiny_32:cifar10", "--data", "photos", "--recipe", "finetune", "--output", "run"]
    keras_t2t(*train, "--epochs", "3", "--learning-rate", "1e-3")
    assert "top-1 1.0000" in keras_t2t("evaluate", "run", "--data", "photos")

    keras_t2t("export", "run", "--output", "exported/model.tflite", "--samples", "photos")
    assert "top-1 1.0000" in keras_t2t("evaluate", "exported/model.tflite", "--data", "photos")
    keras_t2t("predict", "exported/model.tflite", "photos", "--output", "predictions.csv")
    with (project / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
