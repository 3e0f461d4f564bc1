"""Sharing models on the Hugging Face Hub: model cards and uploads."""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence

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
        metrics: Results to state in the model card, by name, such as `{"accuracy": 0.903}`.
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
    """Returns the model card that `push_to_hub` uploads."""
    if metrics and not dataset:
        raise ValueError(f"Expected the name of the dataset that the metrics were measured on; received: metrics={metrics}")
    rows = [f"| {name} | {value:.4g} |" for name, value in (metrics or {}).items()]
    results = [f"| On {dataset} | |", "|---|---|", *rows, ""] if rows else []
    name = repo_id.rpartition("/")[2]
    return card_text(model, name, f"hf://{repo_id}", results, license=license, metrics=metrics, dataset=dataset)


def card_text(
    model: keras.Model,
    name: str,
    source: str,
    sections: Sequence[str],
    *,
    license: str | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    split: str | None = None,
) -> str:
    """Returns a model card in the form of the Hugging Face Hub: a head in YAML, followed by text in Markdown.

    Args:
        model: A model built by this package.
        name: Name of the model, used as the title.
        source: What to pass to `keras.saving.load_model`.
        sections: Lines between the description of the model and the citation.
        license: Identifier of the license of the weights, or `None` if nobody has chosen one yet.
        metrics: Results by name. The head states them if there is a `dataset`.
        dataset: Name of the dataset that the metrics were measured on.
        split: Split of the dataset.
    """
    yaml = import_extra("yaml", "Model cards need PyYAML", "huggingface")
    spec = spec_of(model)
    task = "image-segmentation" if len(model.output_shape) == 4 else "image-classification"
    if spec.output == "features":
        task = "image-feature-extraction"
    head = {"library_name": "keras", "pipeline_tag": task, "tags": ["keras", "keras_t2t", "t2t-vit"]}
    if metrics and dataset:
        head |= {"metrics": list(metrics), "model-index": [_model_index(name, task, metrics, dataset, split)]}
    height, width = (side or "any" for side in model.input_shape[1:3])
    size = "any size" if "any" in (height, width) else f"{height}x{width} pixels"
    predict = 'print(keras_t2t.predict_images(model, ["photo.jpg"], top=1))'
    lines = [
        "---",
        f"license: {license or 'unknown  # choose the license of your weights before you share them'}",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {name}",
        "",
        f"A Keras 3 model with {model.count_params():,} parameters, built with keras_t2t, a package for Tokens-to-Token ViT.",
        "",
        "```python",
        "import keras",
        "import keras_t2t  # registers the layers",
        "",
        f'model = keras.saving.load_model("{source}")',
        *([predict] if task == "image-classification" else []),
        "```",
        "",
        f"- Input: {size}, {'values in [0, 255]' if spec.normalizes else 'normalized'}.",
        f"- Normalization: mean {spec.preprocessing.mean}, std {spec.preprocessing.std}, for values in [0, 1].",
        *([f"- Classes: {', '.join(spec.labels)}."] if spec.labels else []),
        "",
        *sections,
        "## Citation",
        "",
        "```bibtex",
        CITATION,
        "```",
        "",
    ]
    return "\n".join(lines)


def _model_index(name, task, metrics, dataset, split):
    """Returns the entry of the head that states the metrics."""
    data = {"name": dataset, "type": dataset.lower().replace(" ", "-")} | ({"split": split} if split else {})
    values = [{"type": metric, "value": float(value)} for metric, value in metrics.items()]
    return {"name": name, "results": [{"task": {"type": task}, "dataset": data, "metrics": values}]}
