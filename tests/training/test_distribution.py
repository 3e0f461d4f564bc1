"""Training on two devices matches training on one, and invalid strategies raise."""

import csv
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from keras_t2t.training import Recipe, make_strategy
from keras_t2t.training.trainer import check_strategy


def test_two_devices_match_one(tmp_path):
    rng = np.random.default_rng(0)
    for name, color in {"blue": (0, 0, 1), "red": (1, 0, 0)}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(12):
            image = rng.integers(0, 128, (32, 32, 3)) + 100 * np.array(color)
            PIL.Image.fromarray(image.astype("uint8")).save(tmp_path / "data" / name / f"{index}.png")
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "rand_augment_num_ops": 0,
        "drop_path_rate": 0.0,
        "token_drop_rate": 0.0,
        "global_clipnorm": 0,
    }
    command = [sys.executable, "-m", "keras_t2t", "train", "--data", "data", "--model", "t2t_vit_tiny_32"]
    command += [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
    logs = {}
    for name, arguments in {"one": [], "two": ["--strategy", "mirrored", "--cpu-devices", "2"]}.items():
        result = subprocess.run([*command, *arguments, "--output", name], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
        assert ("Training on 2 devices" in result.stdout) == (name == "two")
        with (tmp_path / name / "log.csv").open() as file:
            logs[name] = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for one, two in zip(logs["one"], logs["two"], strict=True):
        assert one.keys() == two.keys()
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-3), key
    assert len(logs["two"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("horovod",), r"one of \('none', 'mirrored', 'tpu', 'jax'\); received: strategy='horovod'"),
        (("none", 2), "the strategy 'mirrored' or 'jax' to split the CPU; received: strategy='none', cpu_devices=2"),
        (
            ("mirrored", 0, "localhost:1", 2, 0),
            "Expected the strategy 'jax' for several processes; received: strategy='mirrored'",
        ),
        (("jax",), "Keras backend 'jax' for the strategy 'jax'; received: 'tensorflow'. Set KERAS_BACKEND=jax"),
    ],
)
def test_invalid_strategy_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(*arguments)


def test_mirrored_strategy_cannot_accumulate_gradients():
    strategy = make_strategy("mirrored")
    with pytest.raises(
        ValueError, match="gradient_accumulation_steps=1 or the strategy 'jax'; received: gradient_accumulation_steps=2"
    ):
        check_strategy(Recipe(gradient_accumulation_steps=2), strategy)
    check_strategy(Recipe(gradient_accumulation_steps=2), None)
    check_strategy(Recipe(), strategy)
