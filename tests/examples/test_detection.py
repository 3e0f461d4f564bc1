"""The detection example on a few drawn images of 96 pixels."""

import json

import keras_hub
import numpy as np
import pytest

from examples import detection, segmentation
from keras_t2t.data import from_voc

pytestmark = pytest.mark.slow


def test_boxes_surround_the_drawn_shapes(tmp_path):
    detection.write_shapes(tmp_path, 5)
    source = from_voc(tmp_path, "train")
    _, masks = segmentation.draw(5, seed=0)
    assert source.classes == ("bar", "disk", "stripes") and len(source) == 5
    for mask, boxes, labels in zip(masks, source.boxes, source.labels, strict=True):
        for (x_min, y_min, x_max, y_max), label in zip(boxes.astype(int), labels, strict=True):
            if label >= 0:
                inside = mask == segmentation.SHAPES.index(source.classes[label])
                assert inside[y_min:y_max, x_min:x_max].sum() == inside.sum() > 0
        assert (labels >= 0).sum() == len(np.unique(mask[mask > 0]))


def test_trains_on_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segmentation, "SHAPES_SIZE", (96, 96))
    detection.write_shapes(tmp_path / "data", 5)
    run = tmp_path / "run"
    options = [
        "--data",
        str(tmp_path / "data"),
        "--size",
        "96",
        "96",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--output",
        str(run),
    ]
    run.mkdir()
    (run / "log.csv").write_text("epoch,loss\n0,7.0\n")  # of a run that was finished
    detection.main(options)
    assert [line.partition(",")[0] for line in (run / "log.csv").read_text().splitlines()] == ["epoch", "0"]
    assert "On 1 test images: AP" in capsys.readouterr().out
    results = json.loads((run / "results.json").read_text())
    for name in ("average_precisions", "average_precisions_at_50"):
        assert set(results[name]) == {"bar", "disk", "stripes"}
    detector = keras_hub.models.ObjectDetector.from_preset(str(run / "preset"))
    assert detector.count_params() == results["parameters"]
    assert (run / "boxes.png").stat().st_size > 10_000
