"""Sharing models on the Hugging Face Hub."""

import json
import pathlib
import tempfile
from collections.abc import Mapping

import keras

from keras_t2t.extras import import_extra
from keras_t2t.models import spec_of

CITATION = """@inproceedings{yuan2021tokens,
  title = {Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet},
  author = {Yuan, Li and Chen, Yunpeng and Wang, Tao and Yu, Weihao and Shi, Yujun and Jiang, Zi-Hang and Tay, Francis E. H. and
            Feng, Jiashi and Yan, Shuicheng},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year = {2021},
}"""


def push_to_hub(
    model: keras.Model,
    repo_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str = "apache-2.0",
    private: bool = False,
    token: str | None = None,
) -> str:
    """Uploads a model with a model card to the Hugging Face Hub, and creates the repository if there is none.

    To load it, call `keras.saving.load_model("hf://USER/NAME")` after `import keras_t2t`. This was only tested with a local
    folder in place of the Hub.

    Args:
        model: A model built by this package, such as a classifier or a segmenter.
        repo_id: `"USER/NAME"`.
        metrics: Results to state in the model card, by name, such as `{"accuracy": 0.857}`.
        dataset: Name of the dataset that the metrics were measured on.
        license: Identifier of the license of the weights.
        private: Whether to make a new repository private.
        token: Access token. Defaults to the one that `hf auth login` stored.

    Returns:
        The URL of the repository.

    Raises:
        ValueError: If the model was not built by this package, or if `metrics` are given without `dataset`.
        ImportError: If huggingface_hub is not installed.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> url = keras_t2t.push_to_hub(model, "user/t2t-vit-tiny")  # doctest: +SKIP
    """
    card = hub_card(model, repo_id, metrics=metrics, dataset=dataset, license=license)
    huggingface_hub = import_extra("huggingface_hub", "Uploading models needs huggingface_hub", "huggingface")
    api = huggingface_hub.HfApi(token=token, library_name="keras_t2t")
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, zipped=False)
        (pathlib.Path(folder) / "README.md").write_text(card, encoding="utf-8")
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a model with keras_t2t")
    return str(url)


def hub_card(
    model: keras.Model,
    repo_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license: str = "apache-2.0",
) -> str:
    """Returns the model card of a model in the form of the Hugging Face Hub; see `push_to_hub`."""
    if metrics and not dataset:
        raise ValueError(f"Expected the name of the dataset that the metrics were measured on; received: metrics={metrics}")
    spec = spec_of(model)
    preprocessing, labels = spec.preprocessing, spec.labels
    task = "image-segmentation" if len(model.output_shape) == 4 else "image-classification"
    if spec.output == "features":
        task = "image-feature-extraction"
    height, width = (side or "any" for side in model.input_shape[1:3])
    size = "any size" if "any" in (height, width) else f"{height}x{width} pixels"
    results = [f"| {name} | {value:.4g} |" for name, value in (metrics or {}).items()]
    lines = [
        "---",
        "library_name: keras",
        f"license: {json.dumps(license)}",
        f"pipeline_tag: {task}",
        "tags: [keras, keras_t2t, t2t-vit]",
        *_model_index(repo_id, task, metrics, dataset),
        "---",
        "",
        f"# {repo_id.rpartition('/')[2]}",
        "",
        f"A Tokens-to-Token ViT with {model.count_params():,} parameters, built with keras_t2t for Keras 3.",
        "",
        "```python",
        "import keras",
        "import keras_t2t  # registers the layers",
        "",
        f'model = keras.saving.load_model("hf://{repo_id}")',
        "```",
        "",
        f"- Images: {size}, {'values in [0, 255]' if spec.normalizes else 'normalized'}.",
        f"- Normalization: mean {preprocessing.mean}, std {preprocessing.std}, for values in [0, 1].",
        *([f"- Classes: {', '.join(labels)}."] if labels else []),
        "",
        *([f"| On {dataset} | |", "|---|---|", *results, ""] if metrics else []),
        "## Citation",
        "",
        "```bibtex",
        CITATION,
        "```",
        "",
    ]
    return "\n".join(lines)


def _model_index(repo_id, task, metrics, dataset):
    """Returns the lines of the YAML head that state the metrics."""
    if not metrics:
        return []
    kind = dataset.lower().replace(" ", "-")
    entries = [f"      - {{type: {json.dumps(name)}, value: {float(value)!r}}}" for name, value in metrics.items()]
    return [
        "model-index:",
        f"  - name: {json.dumps(repo_id.rpartition('/')[2])}",
        "    results:",
        f"    - task: {{type: {task}}}",
        f"      dataset: {{name: {json.dumps(dataset)}, type: {json.dumps(kind)}}}",
        "      metrics:",
        *entries,
    ]
