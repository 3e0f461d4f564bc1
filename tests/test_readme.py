"""The code blocks in the README run in order, and its tables of models, counts and published weights are correct."""

import pathlib
import re

import pytest

import keras_t2t
from examples import detection, segmentation
from keras_t2t.analysis import multiply_accumulates, reconcile
from keras_t2t.weights.registry import PUBLISHED_WEIGHTS
from tests.conftest import CONSTRUCTORS, variant_model

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_code_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 6
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert "(1, 16, 20, 384)" in capsys.readouterr().out


@pytest.mark.parametrize("row", re.findall(r"^\| `([A-Z]\w+)` \|(.* G )\|$", README, re.MULTILINE), ids=lambda row: row[0])
def test_table_of_models(row):
    constructor, cells = row
    _, depth, _, heads, ratio, parameters, macs = (cell.strip().replace(",", "") for cell in cells.split("|"))
    model = variant_model(next(name for name, function in CONSTRUCTORS.items() if function.__name__ == constructor))
    config = keras_t2t.config_of(model)
    assert model.count_params() == int(parameters)
    assert macs == f"{sum(multiply_accumulates(config).values()) / 1e9:.2f} G"
    assert [int(n) for n in depth.split(" + ")] == list(config.group_depths)
    assert (config.num_heads, config.mlp_ratio) == (int(heads), float(ratio))


@pytest.mark.parametrize("row", re.findall(r"^\| `(t2t_vit\w+)` \|(.* G )\|$", README, re.MULTILINE), ids=lambda row: row[0])
def test_table_of_counts(row):
    variant, cells = row
    counted = reconcile(variant)
    authors, products, openmmlab, weights_and_norms, classifier = (cell.strip() for cell in cells.split("|"))
    assert authors == f"{counted.authors / 1e9:.1f} G"
    assert openmmlab == ("" if counted.openmmlab is None else f"{counted.openmmlab / 1e9:.2f} G")
    ours = counted.products, counted.weights_and_norms, counted.class_token
    assert [products, weights_and_norms, classifier] == [f"{count / 1e9:.3f} G" for count in ours]


def test_table_of_published_weights():
    rows = re.findall(r'^\| `(\w+)` \| `"(\w+)"` \|(.*)\|$', README, re.MULTILINE)
    expected = []
    for source in PUBLISHED_WEIGHTS:
        top5 = f"{source.top5:.2f}" if source.top5 else ""
        origin = f"[{'OpenMMLab' if 'openmmlab' in source.base_url else 'authors'}]({source.base_url}{source.file})"
        images = f"{source.image_size}, crop {source.preprocessing.crop_fraction}"
        cells = f" {source.top1:.2f} | {top5} | {images} | {origin} | {source.verified_by} "
        expected.append((CONSTRUCTORS[source.variant].__name__, source.name, cells))
    assert rows == expected


@pytest.mark.slow
def test_code_blocks_of_the_page_on_dense_prediction_run(tmp_path, monkeypatch, capsys):
    """On a few drawn images, for one epoch."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "dense-prediction.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    for old, new in {"192, 192": "64, 96", "96, 128": "48, 64", "batch_size=8": "batch_size=2", "// 8": "// 2"}.items():
        assert old in code
        code = code.replace(old, new)
    code, count = re.subn(r"epochs=\d+", "epochs=1", code)
    assert count == 2
    monkeypatch.chdir(tmp_path)
    segmentation.write_shapes(tmp_path / "drawn", 10)
    (tmp_path / "street").mkdir()
    (tmp_path / "drawn/test/images").rename(tmp_path / "street/images")
    (tmp_path / "drawn/test/labels").rename(tmp_path / "street/masks")
    detection.write_shapes(tmp_path / "VOCdevkit/VOC2007", 2)
    code = code.replace('["road", "sky", "tree"]', '["background", "road", "sky", "tree"]')
    exec(compile(code, "dense-prediction.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"0\.\d+", line) for line in lines)
    assert keras_t2t.hub.T2TViTImageClassifier.from_preset("t2t_tiny", num_classes=5).output_shape == (None, 5)
