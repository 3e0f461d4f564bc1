"""The command `train` as a user meets it: its options, what it says, how it stops and goes on, and what it needs installed."""

import contextlib
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_t2t
from tests import micro, test_cli
from tests.micro import add_micro
from tests.test_cli import write_colors

run = test_cli.run
TRAIN = ("train", "--data", "colors", "--set", "model=micro", "--set", "image_size=32", "--output", "run")


@pytest.fixture
def colors(tmp_path, monkeypatch):
    """A folder with 10 images for training and 2 for validation, and a model that compiles quickly."""
    add_micro(monkeypatch)
    write_colors(tmp_path / "colors")


@pytest.mark.slow
def test_training_from_start_to_end_and_on(run, colors, tmp_path):
    status, output, error = run(*TRAIN, "--epochs", 2, "--learning-rate", 0.002, "--device", "cpu")
    assert status == 0, error
    assert max(map(len, output.splitlines())) <= 80
    parameters = keras.models.load_model("run/model.keras").count_params()
    assert output.startswith(f"Model          micro, random weights\nParameters     {parameters:,}, of which ")
    assert (
        "Classes        2: blue, red\n"
        "Images         10 for training, 2 for validation\n"
        "Image size     32x32\n"
        "Batch size     10, 1 step per epoch\n"
        "Learning rate  0.002, adamw\n"
        "Epochs         2\n"
        "Device         cpu:0\n"
        "Output         run\n"
        "\n"
        "    epoch     loss  accuracy  val. accuracy  learning rate  images/s  time left\n"
        "      1/2 "
    ) in output
    assert re.search(r"\n      1/2 .* 2\.00e-03 .*\n      2/2 .* 1\.00e-06 .* 0:00:00\n", output)
    best, best_accuracy, last_accuracy = re.search(
        r"\nBest epoch: (\d), validation accuracy (\S+)\nLast epoch: 2, validation accuracy (\S+)\nWrote run:\n", output
    ).groups()
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    logged = [float(dict(zip(rows[0].split(","), row.split(","), strict=True))["ema_val_accuracy"]) for row in rows[1:]]
    assert int(best) == 1 + np.argmax(logged) and float(best_accuracy) == max(logged) and float(last_accuracy) == logged[-1]
    named = re.findall(r"^  (\S+)", output.partition("Wrote run:\n")[2], re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (tmp_path / "run").iterdir())

    status, output, error = run(*TRAIN, "--epochs", 3, "--learning-rate", 0.002)
    assert status == 0, error
    assert (
        "\n\nResuming after epoch 2. The run had 2 epochs and now has 3. From here on, the\n"
        "learning rate follows the schedule for 3 epochs, so it may rise at first\n\n"
    ) in output
    assert "\n      3/3 " in output and " 2/3 " not in output and "\nDevice         cpu:0\n" in output

    status, output, error = run(*TRAIN, "--epochs", 3, "--learning-rate", 0.002)
    assert status == 0 and "\n\nAll 3 epochs are finished; increase epochs to continue\n\n" in output
    status, output, error = run(*TRAIN, "--epochs", 2, "--learning-rate", 0.002)
    assert (status, output) == (1, "")
    assert error == (
        "Error: run contains a different training run. Use another folder, or the settings of that run. You can increase "
        "its epochs but not decrease them. Lines of recipe.yaml before: epochs: 3; now: epochs: 2\n"
    )


def test_options_are_settings_of_the_recipe(run, colors):
    arguments = ("train", "--data", "colors", "--show")
    options = run(*arguments, "--epochs", 7, "--batch-size", 3, "--learning-rate", "1e-2")
    settings = run(*arguments, "--set", "epochs=7", "--set", "batch_size=3", "--set", "learning_rate=0.01")
    assert options == settings and options[0] == 0
    for line in ("epochs: 7", "batch_size: 3", "learning_rate: 0.01"):
        assert f"\n{line}\n" in options[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", 5, "--set", "epochs=3"), "Expected one value of epochs; received: 5 from --epochs and 3 from --set"),
        (
            ("--batch-size", 8, "--set", "batch_size=16"),
            "Expected one value of batch_size; received: 8 from --batch-size and 16 from --set",
        ),
        (
            ("--learning-rate", 0.1, "--set", "learning_rate=1"),
            "Expected one value of learning_rate; received: 0.1 from --learning-rate and 1 from --set",
        ),
        (("--set", "seed=1", "--set", "seed=2"), "Expected one value of seed; received: 1 from --set and 2 from --set"),
        (
            ("--model", "t2t_vit_7", "--set", "model=t2t_vit_10"),
            "Expected one value of model; received: t2t_vit_7 from --model and t2t_vit_10 from --set",
        ),
        (
            ("--device", "cpu", "--strategy", "mirrored"),
            "Expected --device or --strategy, not both; received: --device cpu, --strategy mirrored",
        ),
        (("--device", "gpu:77"), "Expected --device to be cpu (tensorflow finds no GPU); received: --device 'gpu:77'"),
        (
            ("--batch-size", 11),
            "Expected at least one batch of 11 training images; received: 10 images. Use --batch-size 10 or less",
        ),
    ],
)
def test_contradictions(run, colors, tmp_path, arguments, message):
    status, output, error = run("train", "--data", "colors", "--output", "run", *arguments)
    assert (status, output) == (1, "")
    assert error.startswith("Error: ") and error.endswith(f"{message}\n")
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_output_among_the_classes_is_refused(run, colors, tmp_path):
    status, output, error = run("train", "--data", "colors", "--output", "colors/run")
    assert (status, output) == (1, "")
    assert error == "Error: Expected --output outside of colors, whose subfolders are classes; received: --output colors/run\n"
    assert not (tmp_path / "colors" / "run").exists()


@pytest.mark.slow
def test_interrupt_says_how_to_go_on(colors, tmp_path):
    settings = ["--set", "model=micro", "--set", "image_size=32", "--epochs", "5000", "--output", "a run"]
    process = subprocess.Popen(
        [*micro.COMMAND, "train", "--data", "colors", *settings],
        cwd=tmp_path,
        env=micro.ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background ignores interrupts, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log, deadline = tmp_path / "a run" / "log.csv", time.monotonic() + 300
    while not list(tmp_path.glob("a run/checkpoints/epoch-*.npz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(5):  # an interrupt is lost if it arrives while a library in C calls Python, so people press Ctrl-C again
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, error = process.communicate(timeout=60)
            break
    assert process.returncode == 130, error
    states = sorted((tmp_path / "a run" / "checkpoints").glob("epoch-*.npz"))
    finished = int(states[-1].stem[-5:])
    rows = len(log.read_text().splitlines()) - 1
    assert finished in (rows - 1, rows)  # the last one may not have been saved
    noun = "epoch" if finished == 1 else "epochs"
    assert error.splitlines()[-1] == (
        f"Stopped after {finished} finished {noun}. To resume, run: keras-t2t train --data colors --set model=micro "
        "--set image_size=32 --epochs 5000 --output 'a run'"
    )
    assert "Traceback" not in error and "Traceback" not in output


@pytest.mark.slow
def test_interrupt_before_the_first_epoch(run, colors, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_t2t.training.progress.Progress.on_epoch_begin", interrupt)
    status, _, error = run(*TRAIN)
    assert status == 130
    assert error == (
        "Stopped after 0 finished epochs. To resume, run: "
        "keras-t2t train --data colors --set model=micro --set image_size=32 --output run\n"
    )


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("yaml", 'Recipes need PyYAML: pip install "keras-t2t[train]"'),
        ("tensorboard", 'Training logs need TensorBoard: pip install "keras-t2t[train]"'),
        ("matplotlib", 'Learning curves need matplotlib: pip install "keras-t2t[train]"'),
    ],
)
def test_missing_packages_are_named_before_any_work(run, colors, tmp_path, monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    assert run(*TRAIN) == (1, "", f"Error: {message}\n")
    assert not (tmp_path / "run").exists()


def test_what_needs_yaml_says_so(run, colors, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("epochs: 20\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    expected = (1, "", 'Error: Recipes need PyYAML: pip install "keras-t2t[train]"\n')
    assert run("train", "--recipe", "imagenet", "--show") == expected
    assert run("train", "--data", "colors", "--show") == expected
    assert run("train", "--recipe", "mine.yaml", "--show") == expected


@pytest.mark.parametrize("module", ["yaml", "tensorboard", "matplotlib"])
@pytest.mark.slow
def test_evaluation_needs_nothing_else(run, tmp_path, monkeypatch, module):
    write_colors(tmp_path / "colors")
    backbone = keras_t2t.T2TViT(micro.MICRO, include_top=False, weights=None, input_shape=(32, 32, 3), pooling="token")
    keras_t2t.replace_head(backbone, ["blue", "red"], "softmax").save("plain.keras")
    monkeypatch.setitem(sys.modules, module, None)
    status, output, error = run("evaluate", "plain.keras", "--data", "colors")
    assert status == 0, error
    assert "2 images" in output
