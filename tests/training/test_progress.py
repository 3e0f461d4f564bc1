"""The lines of a training run on the screen: their exact text, and that they fit 80 columns."""

import io
import pathlib
import re

import keras
import numpy as np
import pytest
import rich.console

from keras_t2t.data import from_arrays
from keras_t2t.training import Recipe
from keras_t2t.training.progress import HEADER, Progress, epoch_line
from keras_t2t.training.summary import closing, opening, resuming

LOGS = {"loss": 1.23456, "accuracy": 0.5, "val_accuracy": 0.61, "ema_val_accuracy": 0.62345}
RECIPE = Recipe(model="t2t_vit_7", epochs=4, warmup_epochs=0, cooldown_epochs=2, batch_size=4, learning_rate=5e-4)


def test_epoch_line():
    assert HEADER == "    epoch     loss  accuracy  val. accuracy  learning rate  images/s  time left"
    line = epoch_line(7, 310, LOGS, 0.000123456, 1234.5, 3 * 3600 + 25 * 60 + 9.4)
    assert line == "    7/310   1.2346    0.5000         0.6234       1.23e-04     1,234    3:25:09"
    assert len(line) == len(HEADER) <= 80
    line = epoch_line(1, 2, {"loss": 0.1, "accuracy": 1.0}, 0.0, 3.0, 59.9)
    assert line == "      1/2   0.1000    1.0000              -       0.00e+00         3    0:01:00"


@pytest.mark.parametrize("terminal", [False, True])
def test_bar_only_on_a_terminal_and_all_lines_fit(monkeypatch, terminal):
    console = rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    progress = Progress(epochs=2, steps=3, batch_size=4)
    model.fit(np.zeros((12, 3)), np.eye(2)[np.zeros(12, int)], batch_size=4, epochs=2, verbose=0, callbacks=[progress])
    progress.bar.refresh()
    progress.bar.stop()
    shown = console.file.getvalue()
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)) if line.strip()]
    assert max(map(len, lines)) <= 80
    table = [line for line in lines if line.startswith("   ")]
    assert table[0] == HEADER and [line.split()[0] for line in table[1:]] == ["1/2", "2/2"]
    assert any(re.match(r"epoch 2/2 ━+ validating 0:00:00$", line) for line in lines) == terminal


def test_first_step_of_a_process_is_not_timed(monkeypatch):
    """It compiles the model. With three steps of 4 images, after 100 s of compilation: 8 images in 2 s, then 12 in 3 s."""
    seconds = iter([0, 100, 101, 102, 104, 104, 105, 106, 107, 109])
    monkeypatch.setattr("keras_t2t.training.progress.time.perf_counter", lambda: next(seconds))
    console = rich.console.Console(file=io.StringIO(), width=80)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    progress = Progress(epochs=11, steps=3, batch_size=4)
    progress.bar.get_time = lambda: 0.0
    progress.set_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    progress.model.compile("sgd")
    progress.on_train_begin()
    for epoch in range(2):
        progress.on_epoch_begin(epoch)
        for batch in range(3):
            progress.on_train_batch_end(batch, LOGS)
        progress.on_epoch_end(epoch, LOGS)
    lines = console.file.getvalue().splitlines()[1:]
    assert [line.split()[-2:] for line in lines] == [["4", "0:00:40"], ["4", "0:00:45"]]


def test_opening():
    classes = ["a class with a long name", "another class with a long name", "a third class with a long name"]
    images = np.zeros((4, 8, 8, 3), "uint8")
    sources = {"train": from_arrays(images, [0, 1, 2, 0], classes), "test": from_arrays(images[:3], [0, 1, 2], classes)}
    frozen = keras.layers.Dense(5, trainable=False)
    model = keras.Sequential([keras.Input((3,)), frozen, keras.layers.Dense(2)])
    assert opening(RECIPE, model, sources, "gpu:1", pathlib.Path("a/b"), "imagenet").splitlines() == [
        "Model          t2t_vit_7, starting from imagenet",
        "Parameters     32, of which 12 are trained",  # 3 * 5 + 5 + 5 * 2 + 2
        "Classes        3: a class with a long name, another class with a long ...",
        "Images         4 for training, 3 for validation (the test images)",
        "Image size     224x224",
        "Batch size     4, 1 step per epoch",
        "Learning rate  0.0005, adamw",
        "Epochs         6, the last 2 at the final learning rate",
        "Device         gpu:1",
        "Output         a/b",
    ]
    shorter = opening(RECIPE.replace(batch_size=2, cooldown_epochs=0), model, {**sources, "val": sources["test"]}, "cpu:0", "x")
    assert "Model          t2t_vit_7, random weights\n" in shorter
    large = keras.Sequential([keras.Input((4,)), keras.layers.Dense(500_000)])
    assert "\nParameters     2.50 M, of which 2.50 M are trained\n" in opening(RECIPE, large, sources, "cpu:0", "x")
    assert "\nBatch size     2, 2 steps per epoch\n" in shorter and "\nEpochs         4\n" in shorter


def rows(*accuracies):
    return [{"epoch": index, "val_accuracy": accuracy} for index, accuracy in enumerate(accuracies, 1)]


def test_resuming():
    assert resuming(RECIPE, [], 6) == ""
    assert resuming(RECIPE, rows(0.1, 0.2), 6) == "\nResuming after epoch 2\n"
    assert resuming(RECIPE, rows(0.1, 0.2), 3) == (
        "\nResuming after epoch 2. The run had 3 epochs and now has 6. From here on, the\n"
        "learning rate follows the schedule for 6 epochs, so it may rise at first\n"
    )
    assert resuming(RECIPE, rows(*[0.1] * 6), 6) == "\nAll 6 epochs are finished; increase epochs to continue\n"
    patient = RECIPE.replace(early_stopping_patience=1)
    assert resuming(patient, rows(0.2, 0.1), 6) == "\nTraining stopped early after epoch 2; nothing is left to do\n"


def test_closing():
    files = [
        "  README.md    model card",
        "  curves.png   loss, accuracy, and learning rate of all epochs",
        "  log.csv      the same values as numbers",
        "  tensorboard  the same for TensorBoard",
        "  checkpoints  training state, for continuing with more epochs",
        "  recipe.yaml  settings",
        "  data.yaml    classes, numbers of images, and initial weights",
    ]
    patient = RECIPE.replace(early_stopping_patience=2)
    assert closing(patient, rows(0.1, 0.5, 0.5, 0.25), pathlib.Path("run")).splitlines() == [
        "Stopped early: no better validation accuracy for 2 epochs (early_stopping_patience)",
        "Best epoch: 2, validation accuracy 0.5000",
        "Last epoch: 4, validation accuracy 0.2500",
        "Wrote run:",
        "  model.keras  model after epoch 4, the last (moving average)",
        "  best.keras   model after epoch 2, the best (moving average)",
        *files,
    ]
    plain = RECIPE.replace(ema_momentum=0)
    assert closing(plain, rows(0.1, 0.5), pathlib.Path("run")).splitlines() == [
        "Best epoch: 2, validation accuracy 0.5000",
        "Last epoch: 2, validation accuracy 0.5000",
        "Wrote run:",
        "  model.keras  model after epoch 2, the last and the best",
        "  best.keras   model after epoch 2, the best",
        *files,
    ]
