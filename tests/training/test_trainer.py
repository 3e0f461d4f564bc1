"""Complete training runs: their output files, resuming after an interruption, and helpful error messages."""

import csv
import dataclasses
import io
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import huggingface_hub
import keras
import numpy as np
import PIL.Image
import pytest
import rich.console

import keras_t2t
from keras_t2t.data import DataError, StreamSource, from_arrays, from_folder
from keras_t2t.training import load_recipe, train
from keras_t2t.training.building import build_model, compiled_model
from keras_t2t.training.callbacks import TrainingError, stops_early
from keras_t2t.training.checkpoints import restore_state
from keras_t2t.training.trainer import balanced
from tests import micro, test_cli
from tests.micro import add_micro

run = test_cli.run
SMALL = {"epochs": 3, "warmup_epochs": 1, "batch_size": 8, "evaluate_every": 1, "drop_path_rate": 0.2, "drop_rate": 0.1}
TINY = load_recipe("small_images").replace(**SMALL, cache=False, ema_momentum=0.9)

with pytest.MonkeyPatch.context() as patch:
    add_micro(patch)
    RECIPE = TINY.replace(model="micro")


@pytest.fixture(scope="module", autouse=True)
def micro_variant():
    with pytest.MonkeyPatch.context() as patch:
        add_micro(patch)
        yield


def colors(count, seed):
    """Returns noisy images that are mostly red, green, or blue."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 128, (count, 32, 32, 3))
    images[np.arange(count), :, :, labels] += 100
    return from_arrays(images.astype("uint8"), labels, ["red", "green", "blue"])


SOURCES = {"train": colors(44, 0), "val": colors(18, 1)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The output folder, the model, and the history of a complete training run."""
    folder = tmp_path_factory.mktemp("finished")
    model, history = train(RECIPE, SOURCES, folder, command="a test", dataset="Three: colors")
    return folder, model, history


def state(folder):
    with np.load(sorted((folder / "checkpoints").glob("*.npz"))[-1]) as file:
        return dict(file)


def assert_same_state(folder, other):
    first, second = state(folder), state(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_output_files(finished):
    folder, model, history = finished
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "best.keras", "checkpoints", "curves.png", "data.yaml", "log.csv", "model.keras", "recipe.yaml"),
        "tensorboard",
    }
    assert [row["epoch"] for row in history] == [1, 2, 3]
    with (folder / "log.csv").open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == history
    assert (folder / "recipe.yaml").read_text() == RECIPE.to_yaml()
    assert load_recipe(folder / "recipe.yaml") == RECIPE
    assert PIL.Image.open(folder / "curves.png").size[0] > 1000
    card = (folder / "README.md").read_text()
    assert "Trained with `a test`" in card and f"| ema_val_accuracy | {history[-1]['ema_val_accuracy']:.4f} |" in card
    loaded = keras.models.load_model(folder / "model.keras")
    assert keras_t2t.labels_of(loaded) == ("red", "green", "blue")
    images = SOURCES["val"].images
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    assert len(list((folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("rematerialize", [False, True])
def test_recipe_decides_whether_blocks_rematerialize(rematerialize):
    model = compiled_model(RECIPE.replace(rematerialize=rematerialize, drop_rate=0.0), ["a", "b"], steps=1)
    blocks = [layer for layer in model.layers if isinstance(layer, keras_t2t.layers.EncoderBlock)]
    assert blocks and all(block.rematerialize is rematerialize for block in blocks)


@pytest.mark.slow
def test_an_extra_augmentation(tmp_path):
    images = SOURCES["train"].images
    negatives = from_arrays(255 - images, SOURCES["train"].labels, SOURCES["train"].classes)
    recipe = RECIPE.replace(epochs=2, warmup_epochs=0, learning_rate=1e-2, crop_padding=0)  # padding is black
    _, expected = train(recipe, {**SOURCES, "train": negatives}, tmp_path / "negatives")
    _, history = train(recipe, SOURCES, tmp_path / "augmented", augment=keras.layers.Rescaling(-1.0, 255.0))
    assert history[1]["loss"] == pytest.approx(expected[1]["loss"], rel=1e-6)
    assert history[1]["val_loss"] == pytest.approx(expected[1]["val_loss"], rel=1e-6)
    _, plain = train(recipe, SOURCES, tmp_path / "plain")
    assert abs(plain[1]["loss"] - expected[1]["loss"]) > 1e-4


def test_head_of_the_model_card_states_the_results_of_the_saved_model(finished):
    folder, model, history = finished
    card = huggingface_hub.ModelCard((folder / "README.md").read_text())
    assert (card.data.library_name, card.data.pipeline_tag) == ("keras", "image-classification")
    assert card.data.license == "unknown"  # nobody has chosen one
    assert card.data.metrics == ["accuracy", "loss"]
    results = {result.metric_type: result for result in card.data.eval_results}
    assert all((r.dataset_name, r.dataset_split) == ("Three: colors", "validation") for r in results.values())
    for metric, result in results.items():
        assert result.metric_value == history[-1][f"ema_val_{metric}"]
    assert results["loss"].metric_value != history[-1]["val_loss"]
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert 'keras.saving.load_model("model.keras")' in code and (folder / "model.keras").is_file()
    assert f"{model.count_params():,} parameters" in card.text and "- Classes: red, green, blue." in card.text


def test_model_has_the_moving_average_and_the_log_has_its_accuracy(finished):
    folder, model, history = finished
    accuracy = (model.predict(SOURCES["val"].images, verbose=0).argmax(1) == SOURCES["val"].labels).mean()
    assert accuracy == pytest.approx(history[-1]["ema_val_accuracy"], abs=1e-6)
    trained = compiled_model(RECIPE, SOURCES["train"].classes, 5)
    assert restore_state(folder / "checkpoints", trained)[0] == 3
    raw = np.array(trained.get_layer("norm").gamma)
    assert not np.allclose(raw, model.get_layer("norm").gamma)
    results = trained.evaluate(SOURCES["val"].images, np.eye(3)[SOURCES["val"].labels], verbose=0, return_dict=True)
    assert results["accuracy"] == pytest.approx(history[-1]["val_accuracy"], abs=1e-6)
    best = keras.models.load_model(folder / "best.keras")
    assert keras_t2t.preprocessing_of(best) == keras_t2t.preprocessing_of(model)
    assert keras_t2t.labels_of(best) == SOURCES["train"].classes
    accuracy = (best.predict(SOURCES["val"].images, verbose=0).argmax(-1) == SOURCES["val"].labels).mean()
    assert accuracy == pytest.approx(max(row["ema_val_accuracy"] for row in history), abs=1e-6)


def test_resuming_matches_an_uninterrupted_run(finished, tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"

    def interrupt(*arguments):
        if len(list((stopped / "checkpoints").glob("*.npz"))) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("keras_t2t.training.progress.Progress.on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, SOURCES, stopped)
    monkeypatch.undo()
    model, history = train(RECIPE, SOURCES, stopped)
    assert_same_state(stopped, finished[0])
    assert history == finished[2]
    for weight, expected in zip(model.get_weights(), finished[1].get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    again, _ = train(RECIPE, SOURCES, stopped)  # nothing is left to do
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_damaged_state_is_skipped_and_the_previous_one_used(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "damaged")
    newest = sorted((tmp_path / "damaged" / "checkpoints").glob("*.npz"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match="epoch-00003.npz is damaged and was skipped"):
        train(RECIPE, SOURCES, tmp_path / "damaged")
    assert_same_state(tmp_path / "damaged", finished[0])


@pytest.mark.slow
def test_killed_at_any_time(run, tmp_path):
    """Kills the command line twice, at a random time after an epoch, when it may be writing files."""
    for split, source in SOURCES.items():
        for index, (image, label) in enumerate(zip(source.images, source.labels, strict=True)):
            folder = tmp_path / "data" / split / source.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(folder / f"{index:03d}.png")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace(epochs=20, evaluate_every=2).to_yaml())
    command = ["train", "--data", "data", "--recipe", "recipe.yaml", "--output"]
    status, output, error = run(*command, "complete")
    assert status == 0 and "Wrote complete:\n  model.keras " in output, error
    rng = random.Random(5)
    for _ in range(2):
        before = set(tmp_path.glob("killed/checkpoints/epoch-*.npz"))
        options = {"cwd": tmp_path, "env": micro.ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*micro.COMMAND, *command, "killed"], **options)
        while process.poll() is None and not set(tmp_path.glob("killed/checkpoints/epoch-*.npz")) - before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        _, error = process.communicate()
        assert process.returncode == -signal.SIGKILL, error[-2000:]
    status, output, error = run(*command, "killed")
    assert status == 0, error
    assert " 1/20 " not in output and " 20/20 " in output
    assert_same_state(tmp_path / "killed", tmp_path / "complete")


def test_infinite_loss_raises_with_the_step(tmp_path):
    bad = RECIPE.replace(learning_rate=1e30, warmup_learning_rate=1e30, ema_momentum=0, evaluate_every=3)
    with pytest.raises(
        TrainingError, match=r"The loss is (nan|inf) at step \d+ \(epoch 1\), learning rate 1e\+30\. .* is none. Try"
    ):
        train(bad, SOURCES, tmp_path)


@pytest.mark.slow
def test_infinite_weights_are_not_saved(tmp_path):
    # The update overflows float32, but the loss is computed before it.
    one_step = RECIPE.replace(learning_rate=1e38, weight_decay=1e3, warmup_epochs=0, batch_size=44, ema_momentum=0)
    with pytest.raises(TrainingError, match=r"weights are not finite after epoch 1, .* is none. Try .* in a new output folder"):
        train(one_step, SOURCES, tmp_path)
    assert not list(tmp_path.glob("checkpoints/*.npz"))


@pytest.mark.slow
def test_full_disk_raises_and_the_same_command_resumes(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    for path in sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1:]:
        path.unlink()  # one epoch is left to do
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # no file may be larger
    try:
        message = r"Cannot write to .*run: .*\. Free some disk space, .* checkpoint is .*epoch-\d+\.npz"
        with pytest.raises(TrainingError, match=message):
            train(RECIPE, SOURCES, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train(RECIPE, SOURCES, tmp_path / "run")
    assert_same_state(tmp_path / "run", finished[0])


def test_different_training_run_needs_a_different_folder(finished):
    message = (
        r"contains a different training run. Use another folder, or the settings of that run. You can increase its epochs but "
        "not decrease them. Lines of "
    )
    with pytest.raises(ValueError, match=message + "recipe.yaml before: epochs: 3; now: epochs: 2"):
        train(RECIPE.replace(epochs=2), SOURCES, finished[0])
    with pytest.raises(ValueError, match=message + "recipe.yaml before: epochs: 3; seed: 0; now: epochs: 4; seed: 7"):
        train(RECIPE.replace(epochs=4, seed=7), SOURCES, finished[0])
    with pytest.raises(ValueError, match=message + "data.yaml before: weights: null; now: weights: cifar10"):
        train(RECIPE, SOURCES, finished[0], weights="cifar10")
    fruit = {split: from_arrays(source.images, source.labels, ["apple", "pear", "plum"]) for split, source in SOURCES.items()}
    with pytest.raises(ValueError, match=message + "data.yaml before: - red; - green; - blue; now: - apple; - pear; - plum"):
        train(RECIPE, fruit, finished[0])
    fewer = {**SOURCES, "train": SOURCES["train"].subset(np.arange(41))}
    with pytest.raises(ValueError, match=message + "data.yaml before: train: 44; now: train: 41"):
        train(RECIPE, fewer, finished[0])
    swapped = {split: from_arrays(source.images, source.labels, ["green", "red", "blue"]) for split, source in SOURCES.items()}
    with pytest.raises(ValueError, match=message + "data.yaml before: the same in another order; now: none of these"):
        train(RECIPE, swapped, finished[0])


@pytest.mark.slow
def test_folder_can_be_reused_after_an_error(tmp_path):
    with pytest.raises(DataError, match="at least one batch of 64 training images"):
        train(RECIPE.replace(batch_size=64), SOURCES, tmp_path)
    assert len(train(RECIPE.replace(epochs=1), SOURCES, tmp_path)[1]) == 1


@pytest.mark.slow
def test_model_card_names_the_evaluated_split(tmp_path):
    train(RECIPE.replace(epochs=1), {**SOURCES, "test": SOURCES["val"]}, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "- Images: 44 in train, 18 in test.\n" in card
    assert "The metrics are measured on the test images." in card
    assert "model-index" not in card  # the dataset has no name


@pytest.mark.slow
def test_interrupt_restores_the_cursor(tmp_path, monkeypatch):
    console = rich.console.Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_t2t.training.progress.Progress.on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, SOURCES, tmp_path)
    shown = console.file.getvalue()
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0


@pytest.mark.slow
def test_class_weights_need_all_labels(tmp_path):
    stream = {split: StreamSource(source.elements(None), len(source), source.classes) for split, source in SOURCES.items()}
    with pytest.raises(DataError, match="class_weights needs all labels in advance"):
        train(RECIPE.replace(class_weights=True), stream, tmp_path / "weighted")
    _, history = train(RECIPE.replace(cache=True, epochs=1), stream, tmp_path / "plain")
    assert len(history) == 1


def test_validation_images_have_the_same_classes(tmp_path):
    sources = {**SOURCES, "val": dataclasses.replace(SOURCES["val"], classes=SOURCES["val"].classes[::-1])}
    with pytest.raises(DataError, match=r"Expected validation images of the same classes, .*; received: "):
        train(RECIPE, sources, tmp_path)


def test_no_validation_images(tmp_path):
    sources = {**SOURCES, "val": SOURCES["val"].subset([])}
    with pytest.raises(DataError, match=r"Expected at least one validation image; received: none"):
        train(RECIPE, sources, tmp_path)


def test_too_few_images(tmp_path):
    message = "^Expected at least one batch of 64 training images; received: 44 images. Use batch_size=44 or less$"
    with pytest.raises(DataError, match=message):
        train(RECIPE.replace(batch_size=64), SOURCES, tmp_path)


@pytest.mark.slow
def test_unreadable_files_raise_or_are_skipped(tmp_path, capsys):
    for name in ("red", "blue"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(12):
            color = (200, index, 0) if name == "red" else (0, index, 200)
            PIL.Image.new("RGB", (32, 32), color).save(tmp_path / "data" / name / f"{index}.png")
    sources = from_folder(tmp_path / "data")
    bad = sources["val"].images[0]
    open(bad, "wb").close()
    short = RECIPE.replace(epochs=1)
    for cache in (False, True):
        with pytest.raises(
            DataError, match=rf"^Cannot read {bad}: empty file\. Remove it, or use skip_bad_files=True in the recipe$"
        ):
            train(short.replace(cache=cache), sources, tmp_path / f"cache {cache}")
    train(short.replace(skip_bad_files=True), sources, tmp_path / "two")
    assert f"val: skipping 1 file that cannot be read: {bad}" in capsys.readouterr().out


@pytest.mark.slow
def test_freeze_backbone_trains_only_the_head(tmp_path):
    recipe = RECIPE.replace(freeze_backbone=True, epochs=1, ema_momentum=0)
    keras.utils.set_random_seed(recipe.seed)
    before = build_model(recipe, SOURCES["train"].classes)
    model, _ = train(recipe, SOURCES, tmp_path)
    for weight, old in zip(model.weights, before.weights, strict=True):
        assert np.array_equal(weight, old) == (not weight.path.startswith("head/")), weight.path


@pytest.mark.parametrize("changes", [{"dtype": "mixed_bfloat16"}, {"jit_compile": True}])
@pytest.mark.slow
def test_mixed_precision_and_xla(changes, tmp_path):
    few = {split: source.subset(np.arange(8)) for split, source in SOURCES.items()}  # 16-bit training is slow on a CPU
    model, history = train(RECIPE.replace(epochs=1, **changes), few, tmp_path)
    assert np.isfinite(history[-1]["loss"]) and "ema_val_accuracy" in history[-1]
    assert {weight.dtype for weight in model.weights} == {"float32"}


@pytest.mark.slow
def test_resuming_in_float16_with_gradient_accumulation(tmp_path, monkeypatch):
    """The loss scale and partially accumulated gradients are part of the state."""
    few = {split: source.subset(np.arange(15)) for split, source in SOURCES.items()}  # 3 batches, 2 per update
    recipe = RECIPE.replace(dtype="mixed_float16", gradient_accumulation_steps=2, batch_size=5, epochs=2, drop_rate=0.0)
    model, history = train(recipe, few, tmp_path / "complete")
    assert np.isfinite(history[-1]["loss"]) and {weight.dtype for weight in model.weights} == {"float32"}

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("keras_t2t.training.progress.Progress.on_epoch_end", interrupt)
        train(recipe, few, tmp_path / "stopped")
    train(recipe, few, tmp_path / "stopped")
    assert_same_state(tmp_path / "stopped", tmp_path / "complete")


def test_float16_scales_the_loss():
    for dtype in ("float32", "mixed_float16"):
        optimizer = compiled_model(RECIPE.replace(dtype=dtype), ["a", "b"], 1).optimizer
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == (dtype == "mixed_float16")


@pytest.mark.slow
def test_finished_run_goes_on_with_more_epochs(finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    longer = RECIPE.replace(epochs=6)
    _, history = train(longer, SOURCES, tmp_path / "run")
    assert (
        "\n\nResuming after epoch 3. The run had 3 epochs and now has 6. From here on, the\n"
        "learning rate follows the schedule for 6 epochs, so it may rise at first\n\n    epoch " in capsys.readouterr().out
    )
    assert history[:3] == finished[2]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    peak, final = longer.learning_rate, longer.final_learning_rate  # the first epoch is the warm-up
    expected = [final + (peak - final) * (1 + np.cos(np.pi * (epoch - 1) / 5)) / 2 for epoch in (4, 5, 6)]
    np.testing.assert_allclose([row["learning_rate"] for row in history[3:]], expected, rtol=1e-5)
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == longer
    train(longer, SOURCES, tmp_path / "run")
    assert "\nAll 6 epochs are finished; increase epochs to continue\n" in capsys.readouterr().out


@pytest.mark.slow
def test_run_that_stopped_early_goes_on_without_the_patience(tmp_path, capsys):
    rates = {"learning_rate": 0.0, "warmup_learning_rate": 0.0, "final_learning_rate": 0.0}
    recipe = RECIPE.replace(**rates, epochs=4, early_stopping_patience=1, ema_momentum=0)
    assert len(train(recipe, SOURCES, tmp_path)[1]) == 2
    assert len(train(recipe.replace(epochs=5), SOURCES, tmp_path)[1]) == 2
    assert "\nTraining stopped early after epoch 2; nothing is left to do\n" in capsys.readouterr().out
    assert len(train(recipe.replace(epochs=5, early_stopping_patience=0), SOURCES, tmp_path)[1]) == 5


@pytest.mark.parametrize(
    ("accuracies", "patience", "stops"),
    [
        ([0.5, 0.4, 0.3], 2, True),
        ([0.5, 0.4, 0.5], 2, True),  # equal is not better
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4], 2, False),
        ([None, None, 0.1], 2, False),
        ([0.2, None, None], 2, False),  # only checked after an evaluation
        ([0.2, None, None, 0.1], 2, True),
        ([0.5, 0.4, 0.3], 0, False),
        ([], 2, False),
    ],
)
def test_stops_early(accuracies, patience, stops):
    rows = [{"epoch": i + 1, **({} if value is None else {"val_accuracy": value})} for i, value in enumerate(accuracies)]
    assert stops_early(rows, patience) == stops


@pytest.mark.slow
def test_class_weights_balance_predictions(tmp_path):
    images = np.zeros((40, 32, 32, 3), "uint8")  # identical, so the best prediction is the weighted class frequency
    source = from_arrays(images, (np.arange(40) % 4 == 0).astype(int), ["common", "rare"])
    sources = {"train": source, "val": source}
    recipe = RECIPE.replace(epochs=12, learning_rate=0.02, label_smoothing=0.0, ema_momentum=0, evaluate_every=12)
    probabilities = [
        train(recipe.replace(class_weights=balance), sources, tmp_path / str(balance))[0].predict(images[:1], verbose=0)[0, 1]
        for balance in (False, True)
    ]
    np.testing.assert_allclose(probabilities, [0.25, 0.5], atol=0.08)


def test_balanced_class_weights():
    weights = balanced(np.array([0, 0, 0, 1, 2, 2]))
    assert weights == {0: pytest.approx(2 / 3), 1: 2.0, 2: 1.0}


@pytest.mark.slow
def test_training_starts_from_the_given_weights(finished, tmp_path):
    start = finished[0] / "model.keras"
    recipe = RECIPE.replace(learning_rate=0.0, warmup_learning_rate=0.0, final_learning_rate=0.0, epochs=1, ema_momentum=0)
    model, _ = train(recipe, SOURCES, tmp_path, weights=str(start))
    np.testing.assert_array_equal(model.get_layer("block0").mlp.fc1.kernel, finished[1].get_layer("block0").mlp.fc1.kernel)
    assert os.path.exists(tmp_path / "model.keras")
