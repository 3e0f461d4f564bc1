"""Pictures are files of the size asked for, no text of which is cut off. How they look was looked at."""

import sys

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from keras_t2t.analysis import (
    attention_panels,
    compare,
    draw_comparison,
    draw_features,
    draw_growth,
    draw_overlays,
    feature_maps,
    growth,
)
from keras_t2t.analysis.geometry import to_pixels, token_centres
from keras_t2t.configs import VARIANTS
from tests.analysis.conftest import SIZE, model_and_numpy


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """Where a picture goes; when it is saved, all that is drawn has to lie within it."""
    plain = matplotlib.figure.Figure.savefig

    def savefig(figure, path, **kwargs):
        plain(figure, path, **kwargs)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02, (box, width, height)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return tmp_path / "picture.png"


def pixels_of(path):
    values = matplotlib.image.imread(path)[..., :3]
    assert values.std() > 0.05
    return values


@pytest.mark.parametrize("kind", ["performer", "patches"])
def test_overlays(kind, saved, images):
    model, numpy_model = model_and_numpy(kind)
    panels = attention_panels(model, images[:1], "a long name of a class")
    stages = ["stage1, from the centre", "stage2, from the centre"] if kind == "performer" else []
    heads = [f"block1, head {i}" for i in range(3)]
    assert list(panels) == ["evidence for a long name of a class", "rollout of the class token", *stages, *heads]
    assert {values.shape for values in panels.values()} == {SIZE}
    numpy_model.logits(images[0])
    last = list(numpy_model.weights.values())[-1]
    centres = token_centres(numpy_model.config.soft_splits, SIZE)
    expected = to_pixels(last[2, 0, 1:].reshape(*map(len, centres)), centres, SIZE)
    np.testing.assert_allclose(panels["block1, head 2"], expected, rtol=1e-4, atol=1e-6)
    draw_overlays(np.full((*SIZE, 3), 200), panels, saved, "title")
    assert pixels_of(saved).shape[1] == round(4 * 2.4 * 110)


@pytest.mark.parametrize("channels", [1, 3])
def test_features(channels, saved, images):
    maps = feature_maps(model_and_numpy("dense")[0], images[:1])
    draw_features(np.full((*SIZE, channels), 90), {name: values[0] for name, values in maps.items()}, saved, "title")
    assert pixels_of(saved).shape[1] == round(7 * 1.7 * 110)


def test_comparison(saved, images):
    models = [model_and_numpy(kind)[0] for kind in ("performer", "dense")]
    results = compare(models, images)
    draw_comparison(results, saved)
    assert pixels_of(saved).shape[1] == round(12.5 * 110)
    with pytest.raises(ValueError, match="Expected at most 6 models in one picture; received 8"):
        draw_comparison(results * 4, saved)


@pytest.mark.parametrize("latencies", [None, {"performer": {112: 0.1, 1024: 3.0}, "transformer": {}}])
def test_growth(latencies, saved):
    sizes = (112, 224, 448, 1024)
    draw_growth(sizes, growth(VARIANTS["t2t_vit_14"], sizes), saved, latencies)
    assert pixels_of(saved).shape[1] == round((12 if latencies else 8.2) * 110)


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'Pictures need matplotlib: pip install "keras-t2t\[plots\]"'):
        draw_growth((112,), {}, tmp_path / "x.png")
