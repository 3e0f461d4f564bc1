"""The analysis examples, with reduced training."""

import json
import re

import keras
import numpy as np
import PIL.Image
import pytest

import keras_t2t
from examples import look_inside, segmentation, token_colors


def test_look_inside(tmp_path, capsys):
    look_inside.main(["--output", str(tmp_path), "--against", "t2t_vit_tiny_32"])
    assert f"Top class of horse.jpg: horse. Wrote the plots to {tmp_path}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"attention.png", "features.png", "redundancy.png", "cost.png"}


def test_token_colors(tmp_path):
    token_colors.main(["--size", "48", "64", "--output", str(tmp_path / "tokens.png")])
    assert PIL.Image.open(tmp_path / "tokens.png").size[0] == 1200


def test_colors_follow_the_principal_components():
    """The features are three independent signals of different strengths, in a rotated basis of 8 channels."""
    rng = np.random.default_rng(0)
    signals = rng.uniform(-1, 1, (13, 11, 3)) * [9, 3, 1]
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0][:3]
    colors = token_colors.principal_colors(signals @ basis + 5)
    for index in range(3):
        correlation = np.corrcoef(colors[..., index].ravel(), signals[..., index].ravel())[0, 1]
        assert abs(correlation) > 0.98
    assert colors.min() == 0 and colors.max() == 1


@pytest.mark.slow
def test_segmentation_of_drawn_shapes(tmp_path, capsys):
    segmentation.main(["--epochs", "3", "--images", "120", "--output", str(tmp_path)])
    mean = float(re.search(r"24 test images: ([\d.]+)", capsys.readouterr().out)[1])
    assert mean > 0.3  # predicting only background gives about 0.2
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mean_iou"] == pytest.approx(mean, abs=5e-4)
    model = keras.models.load_model(tmp_path / "model.keras")
    assert keras_t2t.labels_of(model) == segmentation.SHAPES
    assert results["parameters"] == model.count_params()
    assert (tmp_path / "predictions.png").stat().st_size > 10_000


@pytest.mark.parametrize(("backbone", "head"), [("patches", "mlp"), ("random", "deeplab")])
@pytest.mark.slow
def test_segmentation_of_a_folder(tmp_path, backbone, head, monkeypatch):
    monkeypatch.setattr(segmentation, "SHAPES_SIZE", (96, 96))
    segmentation.write_shapes(tmp_path / "data", 5)
    options = ["--epochs", "1", "--size", "96", "96", "--batch-size", "4", "--ignore", "3", "--classes", "background,disk,bar"]
    options += ["--data", str(tmp_path / "data"), "--backbone", backbone, "--head", head]
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.csv").write_text("epoch,loss\n0,7.0\n")  # of a run that was finished
    segmentation.main([*options, "--output", str(run)])
    assert [line.partition(",")[0] for line in (run / "log.csv").read_text().splitlines()] == ["epoch", "0"]
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["iou"]) == {"background", "disk", "bar"}


def test_the_plain_vit_has_as_many_parameters():
    plain, ours = (segmentation.build(backbone, "mlp", 11, (72, 96)).count_params() for backbone in ("patches", "random"))
    assert plain == pytest.approx(ours, rel=0.02)


def test_drawn_images_match_their_masks():
    images, masks = segmentation.draw(20, seed=3)
    assert images.shape == (20, *segmentation.SHAPES_SIZE, 3) and set(np.unique(masks)) == {0, 1, 2, 3}
    pairs = list(zip(images, masks, strict=True))
    disk, stripes = (np.mean([image[mask == i].std(0) for image, mask in pairs if (mask == i).any()]) for i in (1, 3))
    assert stripes > 2 * disk  # stripes have two colors, disks one
