"""The notebooks run from top to bottom, with less training, and are committed without outputs."""

import configparser
import json
import pathlib
import re

import keras
import matplotlib.pyplot as plt
import pytest

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "examples" / "notebooks").glob("*.ipynb")}


def code_of(name):
    """Returns the code cells of a notebook."""
    return ["".join(cell["source"]) for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the code cells of a notebook after the first one, and returns its variables and figures."""
    figures = []
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: figures.append(plt.gcf()) or plt.close())

    def start(name, changes=None):
        code = "\n".join(code_of(name)[1:])
        for old, new in (changes or {}).items():
            assert code.count(old) == 1
            code = code.replace(old, new)
        variables = {}
        exec(compile(code, name, "exec"), variables)
        return variables, figures

    return start


def test_notebooks_start_with_the_installation_and_have_no_outputs():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(NOTEBOOKS) == {"quick_start", "fine_tune_and_export", "from_scratch"}
    for name, notebook in NOTEBOOKS.items():
        install, *rest = code_of(name)
        package, extras = re.fullmatch(r'%pip install -q "?([\w-]+)(?:\[([\w,]+)\])?"?[ \w-]*', install).groups()
        assert package == setup["metadata"]["name"]
        assert set(extras.split(",") if extras else ()) <= set(setup["options.extras_require"])
        assert not any("pip install" in code for code in rest)
        for cell in notebook["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_quick_start(run):
    variables, figures = run("quick_start")
    correct = [best[0] == photo.stem for photo, (best, _) in zip(variables["photos"], variables["predictions"], strict=True)]
    assert len(correct) == 10 and all(correct)  # see saved_models/README.md
    assert variables["features"].shape == (1, 12, 16, 128)
    assert len(figures) == 2 and [ax.get_title().split()[0] for ax in figures[0].axes][8] == "ship"


@pytest.mark.slow
def test_fine_tune_and_export(run, tmp_path):
    variables, figures = run("fine_tune_and_export", {"epochs=12": "epochs=4, freeze_backbone=True, learning_rate=1e-2"})
    assert len(variables["sources"]["train"]) == 240 and len(variables["sources"]["val"]) == 60
    assert variables["history"][-1]["ema_val_accuracy"] > 0.3  # chance is 0.1
    assert variables["report"].agreement >= 0.9 and (tmp_path / "digits.tflite").stat().st_size < 1e6
    assert "# t2t_vit_tiny_32 on digits\n" in (tmp_path / "runs/digits/README.md").read_text()
    assert len(figures) == 3


@pytest.mark.slow
def test_from_scratch(run, tmp_path):
    variables, figures = run("from_scratch", {"epochs = 12": "epochs = 3", "depth=3": "depth=1"})
    assert 1 - len(variables["wrong"]) / 360 == pytest.approx(variables["history"].history["val_accuracy"][-1])
    assert variables["history"].history["val_accuracy"][-1] > 0.5  # chance is 0.1
    assert keras.models.load_model(tmp_path / "digits.keras").output_shape == (None, 10)
    assert len(figures) == 3
