"""Training the models of a study, resuming and sharing it, and measuring their costs."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import sklearn.datasets

import keras_t2t
from keras_t2t.data import DataError, StreamSource, from_arrays
from keras_t2t.studies import Cell, Study, write_tables
from keras_t2t.studies.cells import stratified_indices
from keras_t2t.studies.references import REFERENCES
from keras_t2t.training import run_study
from keras_t2t.training.study import cell_recipe, measure_costs
from tests.micro import MICRO, add_micro

SETTINGS = {"image_size": 8, "epochs": 2, "warmup_epochs": 0, "batch_size": 16, "ema_momentum": 0.5, "crop_padding": 1}


@pytest.fixture(autouse=True)
def micro_variant(monkeypatch):
    add_micro(monkeypatch)


def digits(count=120):
    """Returns 8x8 digits of scikit-learn, three quarters of them for training."""
    data = sklearn.datasets.load_digits()
    images = np.repeat((data.images[:count, :, :, None] * 15).astype("uint8"), 3, -1)
    source, third = from_arrays(images, data.target[:count], [str(digit) for digit in range(10)]), 3 * count // 4
    return {"train": source.subset(np.arange(third)), "val": source.subset(np.arange(third, count))}


def test_fewer_images_train_for_the_same_number_of_steps():
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    indices = stratified_indices(labels, 0.2, 0)
    assert np.bincount(labels[indices]).tolist() == [20, 10, 1] and len(set(indices)) == 31
    assert stratified_indices(labels, 0.2, 1).tolist() != indices.tolist()
    study = Study(models=["micro"], settings={**SETTINGS, "epochs": 6, "warmup_epochs": 1})
    recipe = cell_recipe(study, Cell("micro", 0.25, 7), 160, 40)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.evaluate_every, recipe.seed) == (
        30,
        5,
        30,
        7,
    )  # 60 steps, 10 of warm-up
    with pytest.raises(DataError, match=r"Expected at least one batch of 16 images; 0\.05 of the images are 8"):
        cell_recipe(study, Cell("micro", 0.05, 7), 160, 8)


def test_streams_are_refused():
    import tensorflow as tf

    stream = StreamSource(tf.data.Dataset.from_tensors((np.zeros((8, 8, 3), "uint8"), 0)), 1, ("a", "b"))
    with pytest.raises(DataError, match="A study needs all images in advance"):
        run_study(Study(models=["micro"]), {"train": stream, "val": stream}, "unused")


def small_network(images, dtype):
    return keras.layers.GlobalAveragePooling2D(dtype=dtype)(keras.layers.Conv2D(4, 3, dtype=dtype)(images))


@pytest.mark.slow
def test_a_study_is_interrupted_resumed_shared_and_merged(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REFERENCES, "resnet_56", small_network)
    sources, study = digits(), Study(models=["micro", "resnet_56"], settings=SETTINGS, seeds=[0, 1], fractions=[0.5])
    save, saved = keras_t2t.training.callbacks.save_state, []

    def interrupted(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(keras_t2t.training.callbacks, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):  # after the second epoch of the second run
        run_study(study, sources, tmp_path, (0, 2))
    run_study(study, sources, tmp_path, (0, 2))
    run_study(study, sources, tmp_path / "other", (1, 2))
    assert len(saved) == 4 * 5  # no epoch was trained twice
    output = capsys.readouterr().out
    assert "Run 1 of 2: micro, 50% of the images, seed 0: finished" in output
    with pytest.raises(ValueError, match=r"seed-0 was trained with a different recipe\. Use another folder"):
        run_study(dataclasses.replace(study, settings={**SETTINGS, "learning_rate": 0.5}), sources, tmp_path, (0, 2))
    shutil.copytree(tmp_path / "other", tmp_path, dirs_exist_ok=True)
    images, labels = sources["val"].images.astype("float32"), sources["val"].labels
    accuracies = {}
    for cell in study.cells():
        result = json.loads((tmp_path / cell.folder / "result.json").read_text())
        model = keras.models.load_model(tmp_path / cell.folder / "model.keras")
        accuracies[cell] = (model.predict(images, verbose=0).argmax(-1) == labels).mean()
        assert result["ema_accuracy"] == pytest.approx(accuracies[cell])
        assert (result["images"], result["steps"]) == (45, 10)
    assert write_tables(tmp_path).count("| 2 |") == 2  # two models, two seeds
    for row in json.loads((tmp_path / "results.json").read_text()):
        mean = np.mean([accuracies[cell] for cell in study.cells() if cell.model == row["model"]])
        assert row["ema_accuracy"] == pytest.approx(mean)


def test_costs_are_measured(tmp_path):
    study = Study(models=["micro"], settings=SETTINGS)
    (tmp_path / "costs.json").write_text('{"hard_patches": {"parameters": 5}, "micro": {"parameters": 6}}')
    measure_costs(study, tmp_path, classes=2, seconds=0.0)
    others = json.loads((tmp_path / "costs.json").read_text())
    costs = others.pop("micro")
    assert others == {"hard_patches": {"parameters": 5}}
    model = keras_t2t.T2TViT(MICRO, weights=None, classes=2, input_shape=(8, 8, 3))
    expected = keras_t2t.analysis.cost(model)
    assert (costs["parameters"], costs["multiply_accumulates"]) == (expected.parameters, expected.multiply_accumulates)
    assert 0 < costs["latency"] < 60 and 0 < costs["training_images_per_second"] < 1e6
