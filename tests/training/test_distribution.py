"""Training on two devices matches training on one, and invalid strategies raise."""

import csv
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from keras_t2t.training import Recipe, make_strategy
from keras_t2t.training.distribution import device_scope
from keras_t2t.training.trainer import check_strategy
from tests import micro, test_cli
from tests.micro import add_micro

run = test_cli.run


@pytest.mark.slow
def test_two_devices_match_one(run, tmp_path, monkeypatch):
    add_micro(monkeypatch)
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
    command = ["train", "--data", "data", "--model", "micro"]
    command += [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
    status, output, error = run(*command, "--output", "one")
    assert status == 0 and "\nDevice         cpu:0\n" in output, error
    command = [*micro.COMMAND, *command, "--strategy", "mirrored", "--cpu-devices", "2", "--output", "two"]
    result = subprocess.run(command, cwd=tmp_path, env=micro.ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0 and "\nDevice         2 devices\n" in result.stdout, result.stderr[-2000:]
    logs = {}
    for name in ("one", "two"):
        with (tmp_path / name / "log.csv").open() as file:
            logs[name] = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    for one, two in zip(logs["one"], logs["two"], strict=True):
        assert one.keys() == two.keys()
        for key in one:
            assert two[key] == pytest.approx(one[key], rel=1e-3), key
    assert len(logs["two"]) == 2


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretends that TensorFlow finds two GPUs. Returns the list of the devices that it is told to see."""
    visible = []
    monkeypatch.setattr("tensorflow.config.list_physical_devices", {"GPU": ["first", "second"]}.get)
    monkeypatch.setattr("tensorflow.config.set_visible_devices", lambda devices, kind: visible.append((devices, kind)))
    return visible


@pytest.mark.parametrize(("device", "seen"), [("cpu", []), ("gpu", "first"), ("gpu:0", "first"), ("gpu:1", "second")])
def test_one_device_hides_the_others(two_gpus, device, seen):
    with device_scope(device):
        assert two_gpus == [(seen, "GPU")]


def test_no_device_leaves_the_choice_to_the_backend(two_gpus):
    with device_scope(None):
        assert two_gpus == []


@pytest.mark.parametrize("device", ["gpu:2", "gpu:-1", "cuda", "GPU", "cpu:1", ""])
def test_unknown_device_raises(two_gpus, device):
    with pytest.raises(ValueError) as error:
        device_scope(device)
    assert str(error.value) == f"Expected device to be cpu or gpu or gpu:0 or gpu:1; received: {device=}"
    assert two_gpus == []


def test_missing_gpu_raises(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    with pytest.raises(ValueError) as error:
        device_scope("gpu")
    assert str(error.value) == "Expected device to be cpu (tensorflow finds no GPU); received: device='gpu'"


@pytest.mark.slow
def test_one_device_on_jax():
    """JAX splits the CPU, so that there is a device which is not the default. Its name is that of where the weights are."""
    code = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import keras
from keras_t2t.training.distribution import describe_device, device_scope
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
with device_scope("cpu"):
    print(describe_device(model()))
with keras.device("cpu:1"):
    print(describe_device(model()))
try:
    device_scope("gpu")
except ValueError as error:
    print(error)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "cpu:0\ncpu:1\nExpected device to be cpu (jax finds no GPU); received: device='gpu'\n", (
        result.stderr
    )


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
        ValueError,
        match="gradient_accumulation_steps=1 in the recipe, or the strategy 'jax'; received: gradient_accumulation_steps=2",
    ):
        check_strategy(Recipe(gradient_accumulation_steps=2), strategy)
    check_strategy(Recipe(gradient_accumulation_steps=2), None)
    check_strategy(Recipe(), strategy)
