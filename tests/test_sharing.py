"""Models on the Hugging Face Hub, with a local folder in place of the site."""

import pathlib
import shutil
import sys

import huggingface_hub
import keras
import numpy as np
import pytest
import yaml

import keras_t2t
from keras_t2t.registry import SHIPPED_WEIGHTS
from keras_t2t.sharing import card_text, hub_card


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Replaces the calls to the site. Repositories are folders in `tmp_path`."""

    def create_repo(self, repo_id, **kwargs):
        (tmp_path / repo_id).mkdir(parents=True, exist_ok=True)
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, **kwargs):
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr("keras.src.saving.saving_lib.check_pydot", lambda: False)  # it would draw, even without graphviz
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo_id, **kwargs: str(tmp_path / repo_id))
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return keras_t2t.T2TViTTiny32(weights="cifar10")


@pytest.mark.slow
def test_saves_and_loads_with_keras_alone(site, model):
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    model.save("hf://user/tiny", zipped=False)
    loaded = keras.saving.load_model("hf://user/tiny")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_pushes_a_model_with_a_card(site, model):
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    metrics = {"accuracy": 0.8573, "top-5: accuracy": 0.9931}
    url = keras_t2t.push_to_hub(model, "user/t2t-tiny", metrics=metrics, dataset="CIFAR-10", license="mit")
    assert url == "https://huggingface.co/user/t2t-tiny"
    loaded = keras.saving.load_model("hf://user/t2t-tiny")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert keras_t2t.labels_of(loaded) == keras_t2t.labels_of(model)
    _, head, text = (site / "user/t2t-tiny/README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(head)
    assert (head["library_name"], head["license"], head["pipeline_tag"]) == ("keras", "mit", "image-classification")
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "CIFAR-10"
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == metrics
    assert 'import keras_t2t  # registers the layers\n\nmodel = keras.saving.load_model("hf://user/t2t-tiny")' in text
    assert f"{model.count_params():,} parameters" in text and "32x32 pixels, values in [0, 255]" in text
    assert "| accuracy | 0.8573 |" in text and "airplane" in text and "yuan2021tokens" in text
    assert pathlib.Path(site / "user/t2t-tiny/config.json").is_file()


def test_card_of_the_shipped_weights_states_their_accuracy(model):
    (weights,) = SHIPPED_WEIGHTS
    text = (weights.path.parent / "README.md").read_text()
    metrics = {"accuracy": round(weights.top1 / 100, 4), "top5": round(weights.top5 / 100, 4)}
    card = huggingface_hub.ModelCard(text)
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == metrics
    assert f"| top-1 accuracy | {weights.top1}% |\n| top-5 accuracy | {weights.top5}% |" in text
    name, license = "t2t_vit_tiny_32 on CIFAR-10", weights.license.lower()
    written = card_text(model, name, "model.keras", [], license=license, metrics=metrics, dataset="CIFAR-10", split="test")
    description, citation = written.split("## Citation")
    assert text.startswith(description) and text.endswith(citation)


def test_cards_of_other_tasks(model):
    segmenter = keras_t2t.segmenter(model, ["road", "sky"])
    card = hub_card(segmenter, "user/streets")
    assert "pipeline_tag: image-segmentation" in card and "model-index" not in card and "any size" in card
    assert "pipeline_tag: image-feature-extraction" in hub_card(keras_t2t.feature_pyramid(model, levels=["P2"]), "user/x")


def test_invalid_arguments_raise(model, monkeypatch):
    with pytest.raises(ValueError, match="Expected the name of the dataset that the metrics were measured on"):
        keras_t2t.push_to_hub(model, "user/tiny", metrics={"accuracy": 0.8})
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'Uploading models needs huggingface_hub: pip install "keras-t2t\[huggingface\]"'):
        keras_t2t.push_to_hub(model, "user/tiny")
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.push_to_hub(keras.Sequential([keras.Input((4, 4, 3))]), "user/tiny")
