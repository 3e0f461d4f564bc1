"""The predict command: its values are those of plain Keras, and one bad file does not stop it."""

import csv
import itertools
import json

import numpy as np
import PIL.Image
import pytest

import keras_t2t
from keras_t2t.cli.predict import _set_aside
from keras_t2t.cli.records import write_records
from keras_t2t.inference import stream_predictions
from tests import test_cli
from tests.conftest import SMALL_CONFIGS, mostly_slow

run = test_cli.run
SIZE = (31, 46)
LABELS = ("daisy", "red rose", "tulip, wild")


def flower_model(**kwargs):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    activation = kwargs.pop("classifier_activation", "softmax")
    return keras_t2t.replace_head(keras_t2t.T2TViT(config, input_shape=(*SIZE, 3), **kwargs), LABELS, activation)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five images in two folders, of the size that the model takes. Returns the pixels by path, in sorted order."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(4).integers(0, 256, (5, *SIZE, 3), dtype="uint8")
    names = ("a.png", "b/1.PNG", "b/2.bmp", "b/c/3.png", "d.png")
    for name, image in zip(names, pixels, strict=True):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b" / "notes.txt").write_text("no image")
    return {f"photos/{name}": image for name, image in zip(names, pixels, strict=True)}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("file", "bare"),
    [
        ("model.tflite", False),
        *mostly_slow([("model.keras", False), ("model.keras", True), ("model.tflite", True), ("model.onnx", True)]),
    ],
)
def test_values_are_those_of_plain_keras(run, photos, file, bare):
    pixels = np.stack(list(photos.values())).astype("float32")
    if bare:  # normalized images go in, and logits come out
        model = flower_model(include_preprocessing=False, classifier_activation=None)
        images = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        expected = softmax(model.predict(images.astype("float32"), verbose=0))
    else:
        model = flower_model()
        expected = model.predict(pixels, verbose=0)
    model.save(file) if file.endswith(".keras") else keras_t2t.export(model, file)
    arguments = ("predict", file, "photos", "--crop-fraction", 1, "--batch-size", 2)
    status, output, error = run(*arguments, "--output", "made/predictions.csv")
    assert (status, output) == (0, "Wrote made/predictions.csv: 5 images\n"), error
    rows = rows_of("made/predictions.csv")
    assert [row["path"] for row in rows] == list(photos)
    for row, probabilities in zip(rows, expected, strict=True):
        order = np.argsort(-probabilities)
        assert [row[f"label{rank}"] for rank in (1, 2, 3)] == [LABELS[index] for index in order]
        received = [float(row[f"probability{rank}"]) for rank in (1, 2, 3)]
        np.testing.assert_allclose(received, probabilities[order], atol=1e-6 if file == "model.keras" else 1e-5)
    assert run(*arguments, "--output", "predictions.json", "--top", 1)[0] == 0
    with open("predictions.json") as lines:
        first = json.load(lines)
    assert first == [{"path": row["path"], "label1": row["label1"], "probability1": float(row["probability1"])} for row in rows]


def test_several_images_are_printed_one_per_line(run, photos, monkeypatch):
    model = flower_model()
    model.save("model.keras")
    order = ["photos/d.png", "photos/b/1.PNG", "photos/b/2.bmp", "photos/b/c/3.png"]
    status, output, error = run("predict", "model.keras", "photos/d.png", "photos/b", "--crop-fraction", 1, "--top", 2)
    assert status == 0, error
    assert not error  # no progress bar where there is no terminal
    expected = ""
    for path, row in zip(order, model.predict(np.stack([photos[path] for path in order]), verbose=0), strict=True):
        first, second = np.argsort(-row)[:2]
        expected += f"{path}: {LABELS[first]} {row[first]:.4f}, {LABELS[second]} {row[second]:.4f}\n"
    assert output == expected
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status, folded, _ = run("predict", "model.keras", "photos/d.png", "photos/b", "--crop-fraction", 1, "--top", 2)
    assert max(map(len, folded.splitlines())) <= 40
    assert folded.replace("\n  ", " ") == expected


def test_a_bad_file_does_not_stop_the_others(run, photos, tmp_path):
    flower_model().save("model.keras")
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"no image")
    status, output, error = run("predict", "model.keras", "photos", "--output", "predictions.csv", "--batch-size", 3)
    assert (status, output) == (1, "Wrote predictions.csv: 5 images\n")
    reason = "not an image (starts with b'no image')"
    assert error == f"Error: 1 of 6 images cannot be read:\n  photos/b/broken.png: {reason}\n"
    assert [row["path"] for row in rows_of("predictions.csv")] == list(photos)
    status, output, error = run("predict", "model.keras", "photos/b/broken.png")
    assert (status, output) == (1, "")
    assert error == f"Error: 1 of 1 image cannot be read:\n  photos/b/broken.png: {reason}\n"


def test_reasons_name_each_file_once():
    unreadable = {}
    results = [
        ("a.png", FileNotFoundError(2, "No such file or directory", "a.png")),
        ("b.png", [("daisy", 0.75)]),
        ("c.png", ValueError("Cannot read c.png: truncated JPEG")),
    ]
    assert list(_set_aside(results, unreadable)) == [("b.png", [("daisy", 0.75)])]
    assert unreadable == {"a.png": "No such file or directory", "c.png": "truncated JPEG"}


def test_progress_bar_on_a_terminal(run, photos, monkeypatch):
    flower_model().save("model.keras")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _, output, error = run("predict", "model.keras", "photos", "--output", "predictions.csv")
    assert output == "Wrote predictions.csv: 5 images\n"
    assert "Predicting" in error and "100%" in error


def test_predictions_stream(photos):
    taken = itertools.count()
    endless = (path for path in itertools.cycle(photos) if next(taken) >= 0)
    results = stream_predictions(flower_model(), endless, 1, batch_size=4)
    received = [next(results) for _ in range(10)]
    assert [path for path, _ in received] == [path for path, _ in zip(itertools.cycle(photos), range(10), strict=False)]
    assert next(taken) == 12  # three batches of four, not more
    for path, [(label, probability)] in received:
        [(expected_label, expected_probability)] = received[list(photos).index(path)][1]
        assert (label, probability) == (expected_label, pytest.approx(expected_probability, rel=1e-5))


def test_errors_are_in_the_place_of_predictions(photos):
    model = flower_model()
    results = list(stream_predictions(model, ["photos/a.png", "none.png", "photos/d.png"], batch_size=3))
    assert [path for path, _ in results] == ["photos/a.png", "none.png", "photos/d.png"]
    assert isinstance(results[1][1], FileNotFoundError)
    assert [result for _, result in results[::2]] == keras_t2t.predict_images(model, ["photos/a.png", "photos/d.png"])
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        keras_t2t.predict_images(model, ["photos/a.png", "none.png"])


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_records_are_written_as_they_come(tmp_path, suffix):
    path = tmp_path / f"records{suffix}"

    def records(count):
        yield {"path": "ä, b.png", "label1": 'a "rose"', "probability1": 0.5}
        yield {"path": "c\udcff.png", "label1": "x", "probability1": 1e-7}  # a name that is not UTF-8
        if count > 2:
            raise OSError("the power went out")

    assert write_records(path, records(2)) == 2
    complete = path.read_bytes()
    with pytest.raises(OSError, match="the power went out"):
        write_records(path, records(3))
    assert path.read_bytes() == complete
    text = complete.decode(errors="surrogateescape")
    if suffix == ".csv":
        assert text == 'path,label1,probability1\n"ä, b.png","a ""rose""",0.5\nc\udcff.png,x,1e-07\n'
    else:
        assert json.loads(text) == list(records(2))


def test_mistakes_show_before_the_work_starts(run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.keras").write_text("no model")  # which is an error once it is opened
    for output in ("predictions.txt", "predictions", "empty"):
        assert run("predict", "model.keras", "photos", "--output", output)[2] == (
            f"Error: Expected the path of a .csv or .json file; received: {output}\n"
        )
    error = run("predict", "model.keras", "photos", "empty")[2]
    assert error == "Error: Expected a folder that contains images; received: empty\n"
