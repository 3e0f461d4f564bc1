"""Plots have the requested size and show the right data, without clipped or overlapping titles."""

import dataclasses
import itertools
import sys

import keras
import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from keras_t2t.analysis import (
    attention_maps,
    attention_panels,
    attention_rollout,
    compare,
    draw_comparison,
    draw_features,
    draw_growth,
    draw_overlays,
    feature_maps,
    growth,
)
from keras_t2t.analysis.geometry import to_pixels, token_centers
from keras_t2t.variants import VARIANTS
from tests.analysis.conftest import SIZE, model_and_numpy
from tests.conftest import PYRAMID_CONFIGS


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """Path for a plot. Saving checks that everything lies inside the figure and that no two titles overlap."""
    original = matplotlib.figure.Figure.savefig

    def savefig(figure, path, **kwargs):
        original(figure, path, **kwargs)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02, (box, width, height)
        titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        notes = [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
        assert not any(first.overlaps(second) for first, second in itertools.combinations(titles + notes, 2))
        panels_by_title.update({axes.get_title().replace("\n", " "): axes for axes in figure.axes})

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    panels_by_title.clear()
    return tmp_path / "picture.png"


panels_by_title = {}
"""The axes of the most recent plots by title."""


def pixels_of(path):
    values = matplotlib.image.imread(path)[..., :3]
    assert values.std() > 0.05
    return values


@pytest.mark.parametrize("kind", ["performer", "patches"])
def test_overlays(kind, saved, images):
    model, numpy_model = model_and_numpy(kind)
    panels = attention_panels(model, images[:1], "a long class name")
    stages = ["stage1, center token", "stage2, center token"] if kind == "performer" else []
    heads = [f"block1, head {i}" for i in range(3)]
    assert list(panels) == ["evidence for a long class name", "attention rollout, class token", *stages, *heads]
    assert {values.shape for values in panels.values()} == {SIZE}
    numpy_model.logits(images[0])
    last = list(numpy_model.weights.values())[-1]
    centers = token_centers(numpy_model.config.soft_splits, SIZE)
    expected = to_pixels(last[2, 0, 1:].reshape(*map(len, centers)), centers, SIZE)
    np.testing.assert_allclose(panels["block1, head 2"], expected, rtol=1e-4, atol=1e-6)
    rollout = attention_rollout(model, images[:1])[0, 0, 1:].reshape(*map(len, centers))
    np.testing.assert_allclose(panels["attention rollout, class token"], to_pixels(rollout, centers, SIZE), rtol=1e-5)
    for i, title in enumerate(stages, 1):
        stage_centers = token_centers(numpy_model.config.soft_splits[:i], SIZE)
        weights = attention_maps(model, images[:1], f"stage{i}")[f"stage{i}"][0, 0, 0].reshape(*map(len, stage_centers))
        np.testing.assert_allclose(panels[title], to_pixels(weights, stage_centers, SIZE), rtol=1e-5)
    draw_overlays(np.full((*SIZE, 3), 200), panels, saved, "title")
    for title, values in panels.items():
        np.testing.assert_array_equal(panels_by_title[title].images[1].get_array(), values)
    with pytest.raises(
        ValueError, match=r"Expected one image of shape \(1, H, W, C\); received: images of shape \(3, 31, 46, 3\)"
    ):
        attention_panels(model, images)


def test_overlays_have_a_scale(saved):
    rng = np.random.default_rng(2)
    maps = {
        "peaked": np.linspace(-0.0125, 0.25, np.prod(SIZE)).reshape(SIZE),
        "over a fifth": rng.permuted(np.linspace(0.79, 1.0, np.prod(SIZE))).reshape(SIZE),
        "less": rng.permuted(np.linspace(0.81, 1.0, np.prod(SIZE))).reshape(SIZE),
        "negative": rng.permuted(np.linspace(-0.03, -0.025, np.prod(SIZE))).reshape(SIZE),
        "flat": np.zeros(SIZE),
    }
    draw_overlays(np.full((*SIZE, 1), 200), maps, saved, "title")
    notes = {title: axes.get_xlabel() for title, axes in panels_by_title.items() if title}
    assert notes == {
        "image": "",
        "peaked": "-0.0125 to 0.25",
        "over a fifth": "0.79 to 1",
        "less": "0.81 to 1, nearly uniform",
        "negative": "-0.03 to -0.025, nearly uniform",
        "flat": "0 to 0, nearly uniform",
    }
    for title, values in maps.items():
        low, high = panels_by_title[title].images[1].get_clim()
        assert (low, high) == (values.min(), values.max()) or (title == "flat" and low < 0 < high)
    scale = panels_by_title[""]
    assert [label.get_text() for label in scale.get_yticklabels()] == ["lowest", "highest"]
    assert tuple(scale.get_yticks()) == scale.get_ylim()  # even though the last map is flat


@pytest.mark.parametrize(("panels", "grid"), [(2, (1, 2)), (5, (1, 5)), (7, (2, 4)), (8, (2, 4)), (9, (3, 3)), (13, (3, 5))])
def test_no_panel_is_alone_in_its_row(panels, grid, saved):
    maps = {f"map {number}": np.eye(*SIZE) for number in range(1, panels)}
    draw_overlays(np.full((*SIZE, 3), 200), maps, saved)
    places = [axes.get_subplotspec() for title, axes in panels_by_title.items() if title]
    assert [place.num1 for place in places] == list(range(panels))  # without gaps, and nothing after the last one
    assert {place.get_gridspec().get_geometry() for place in places} == {grid}
    assert len(panels_by_title) == panels + 1  # the colorbar has no title
    assert pixels_of(saved).shape[1] == round((2.4 * grid[1] + 0.7) * 110)
    draw_overlays(np.full((*SIZE, 3), 200), maps, saved, columns=2)
    assert panels_by_title["image"].get_subplotspec().get_gridspec().get_geometry() == (-(-panels // 2), 2)


def test_long_titles_are_wrapped(saved):
    title = "evidence for a class with a name of many words, more than fit on one line"
    draw_overlays(np.full((*SIZE, 3), 200), {title: np.zeros(SIZE), title + "!": np.zeros(SIZE)}, saved)
    assert {title, title + "!"} < set(panels_by_title)


@pytest.mark.parametrize("channels", [1, 3])
def test_features(channels, saved, images):
    maps = feature_maps(model_and_numpy("dense", configs=PYRAMID_CONFIGS)[0], images[:1])
    block = {"block0": maps["block0"][0]}
    draw_features(np.full((*SIZE, channels), 90), block, saved, "title")
    highest = np.argsort(-block["block0"].var((0, 1)))[:6]
    assert [title for title in panels_by_title if title] == [f"channel {channel}" for channel in highest]
    for channel in highest:
        (image,) = panels_by_title[f"channel {channel}"].images
        np.testing.assert_array_equal(image.get_array(), block["block0"][..., channel])
    draw_features(np.full((*SIZE, channels), 90), {name: values[0] for name, values in maps.items()}, saved, "title")
    assert pixels_of(saved).shape[1] == round(7 * 1.7 * 110)


@pytest.mark.slow
def test_comparison(saved, images):
    models = [model_and_numpy(kind)[0] for kind in ("performer", "dense")]
    results = compare(models, images)
    results = [dataclasses.replace(result, name=f"t2t_vit_14_{result.name} (imagenet_openmmlab)") for result in results]
    draw_comparison(results, saved)
    assert pixels_of(saved).shape[1] == round(12.5 * 110)
    for result in results:
        (image,) = panels_by_title[result.name].images
        np.testing.assert_array_equal(image.get_array(), result.redundancy.cka)
        (line,) = (line for line in panels_by_title["cosine similarity of heads"].lines if line.get_label() == result.name)
        np.testing.assert_array_equal(line.get_ydata(), result.redundancy.by_block()["cosine"])
    named = [dataclasses.replace(results[0], name=f"{i} {results[0].name}") for i in range(6)]
    draw_comparison(named, saved)
    with pytest.raises(ValueError, match="Expected at most 6 models; received: 8 models"):
        draw_comparison(results * 4, saved)


@pytest.mark.parametrize("latencies", [None, {"performer": {112: 0.1, 1024: 3.0}, "transformer": {}}])
def test_growth(latencies, saved):
    sizes = (112, 224, 448, 1024)
    counts = growth(VARIANTS["t2t_vit_14"].config, sizes)
    draw_growth(sizes, counts, saved, latencies)
    for kind, (macs, largest) in counts.items():
        panels = {"multiply-accumulates (billions)": macs / 1e9, "largest activation, float32 (MiB)": largest * 4 / 2**20}
        for title, values in panels.items():
            (line,) = (line for line in panels_by_title[title].lines if line.get_label() == kind)
            np.testing.assert_allclose(line.get_ydata(), values)
    if latencies:
        assert panels_by_title["latency, one image (s)"].lines[0].get_xydata().tolist() == [[112, 0.1], [1024, 3.0]]
    assert pixels_of(saved).shape[1] == round((12 if latencies else 8.2) * 110)


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'Plots need matplotlib: pip install "keras-t2t\[plots\]"'):
        draw_growth((112,), {}, tmp_path / "x.png")


def test_panels_of_a_model_that_resizes_its_images():
    inner = model_and_numpy("performer")[0]
    size = inner.input_shape[1:3]
    outer = keras.Sequential([keras.Input((2 * size[0], 3 * size[1], 3)), keras.layers.Resizing(*size), inner])
    images = np.random.default_rng(0).uniform(0, 255, (1, 2 * size[0], 3 * size[1], 3)).astype("float32")
    panels = attention_panels(outer, images)
    expected = attention_panels(inner, keras.ops.convert_to_numpy(outer.layers[0](images)))
    assert list(panels) == list(expected)
    for title, values in panels.items():
        assert values.shape == (2 * size[0], 3 * size[1])
        assert values.mean() == pytest.approx(expected[title].mean(), rel=0.1, abs=1e-3)
