"""The training examples run on synthetic images for a few epochs."""

import pathlib
import socket
import subprocess

import keras
import numpy as np
import PIL.Image
import pytest

from examples import cifar10, imagenet
from tests import micro
from tests.micro import add_micro

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parents[2]


def write_images(folder, splits=("train", "test"), count=12):
    rng = np.random.default_rng(0)
    for split in splits:
        for name, color in {"blue": (10, 20, 200), "red": (200, 10, 20)}.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                image = np.clip(rng.normal(color, 20, (32, 32, 3)), 0, 255).astype("uint8")
                PIL.Image.fromarray(image).save(folder / split / name / f"{index}.png")


def test_cifar10(tmp_path, capsys):
    write_images(tmp_path / "data")
    arguments = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--batch-size", "8"]
    cifar10.main([*arguments, "--epochs", "3", "1"])
    assert "Test accuracy " in capsys.readouterr().out
    small, large = (keras.models.load_model(tmp_path / run / "model.keras") for run in ("run-24", "run"))
    assert small.input_shape[1:3] == (24, 24) and large.input_shape[1:3] == (32, 32)
    before, after = (np.ravel(model.get_layer("block4").mlp.fc2.kernel) for model in (small, large))
    assert 0.9 < np.corrcoef(before, after)[0, 1] < 1  # the second run started from the first


def test_imagenet(tmp_path, capsys, monkeypatch):
    add_micro(monkeypatch)
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyColors(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["blue", "red"])}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(16), "validation": self._generate_examples(6)}

        def _generate_examples(self, count):
            for index in range(count):
                pixels = np.zeros((40, 52, 3), "uint8")
                pixels[..., 2 * (1 - index % 2)] = 200
                yield index, {"image": pixels, "label": index % 2}

    data = ["--data", "tfds:tiny_colors", "--data-dir", str(tmp_path / "tfds")]
    imagenet.main([*data, "--output", str(tmp_path / "run"), "--model", "micro", "--epochs", "1", "--batch-size", "8"])
    assert "moving average" in capsys.readouterr().out
    assert "seed: 0" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 2)


def test_several_machines(tmp_path):
    write_images(tmp_path, ["data"])
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        coordinator = f"localhost:{listener.getsockname()[1]}"
    command = [*micro.COMMAND, "examples/several_machines.py", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    command += ["--model", "micro", "--epochs", "1", "--coordinator", coordinator, "--processes", "2", "--process"]
    environment = {**micro.ENVIRONMENT, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    started = [
        subprocess.Popen([*command, str(i)], cwd=REPOSITORY, env=environment, stdout=-1, stderr=-1, text=True) for i in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "Held-out accuracy " in outputs[0][0] and "Held-out" not in outputs[1][0]
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 2)
