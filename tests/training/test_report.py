"""The learning curves and the model card."""

import numpy as np
import pytest

import keras_t2t
from keras_t2t.data import from_arrays
from keras_t2t.figures import new_figure
from keras_t2t.training import Recipe
from keras_t2t.training.report import draw_curves, model_card


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 60])
def test_curves_have_whole_epochs(tmp_path, monkeypatch, epochs):
    figures = []
    monkeypatch.setattr("keras_t2t.training.report.new_figure", lambda *size: figures.append(new_figure(*size)) or figures[-1])
    names = ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
    history = [{"epoch": epoch, **dict.fromkeys(names, 1 / epoch)} for epoch in range(1, epochs + 1)]
    draw_curves(history, tmp_path / "curves.png")
    for axes in figures[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)


def test_model_card_names_the_best_epoch():
    images = from_arrays(np.zeros((3, 8, 8, 3), "uint8"), [0, 1, 0], ["a", "b"])
    history = [{"epoch": epoch, "val_accuracy": accuracy} for epoch, accuracy in ((1, 0.25), (2, 0.75), (3, 0.5))]
    model = keras_t2t.T2TViTTiny32(weights=None, classes=2)
    card = model_card(model, Recipe(), {"train": images, "val": images}, history, "a test")
    assert "\n- `best.keras` contains the weights after epoch 2, which has the best validation accuracy.\n" in card
    assert "\n| val_accuracy | 0.5000 |\n" in card
