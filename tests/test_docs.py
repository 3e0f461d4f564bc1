"""The pages of the site: their code runs, their commands, links and references exist, and their tables are correct."""

import ast
import configparser
import functools
import importlib.util
import inspect
import re
import shutil

import keras
import numpy as np
import pytest

import keras_t2t
from examples import detection, segmentation
from keras_t2t import assets
from keras_t2t.analysis import multiply_accumulates, reconcile
from keras_t2t.registry import PUBLISHED_WEIGHTS
from keras_t2t.training import RECIPES
from tests.conftest import CONSTRUCTORS, variant_model
from tests.pages import PAGES, README, ROOT, SMALLER, code_of, commands_of, run
from tests.test_cli_messages import COMMANDS

DOCS = ROOT / "docs"
MODELS = (DOCS / "models.md").read_text()
PAPER = (DOCS / "paper.md").read_text()
API = {
    name: page for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
}
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "saved_models" / "README.md"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of, made the current one: a few small photos and drawn shapes."""
    monkeypatch.chdir(tmp_path)
    photos = sorted(assets.folder("images").glob("*.jpg"))
    shutil.copy(photos[0], "photo.jpg")
    for photo in photos:
        for split in ("train", "val"):
            (tmp_path / "cifar10" / split / photo.stem).mkdir(parents=True)
            shutil.copy(photo, tmp_path / "cifar10" / split / photo.stem)
    for index, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.random.default_rng(number).uniform(0, 255, (40, 48, 3)) * (np.arange(3) == index)
            keras.utils.save_img(tmp_path / "flowers" / name / f"{number}.png", pixels, scale=False)
    segmentation.write_shapes(tmp_path / "drawn", 10)
    (tmp_path / "street").mkdir()
    (tmp_path / "drawn/test/images").rename(tmp_path / "street/images")
    (tmp_path / "drawn/test/labels").rename(tmp_path / "street/masks")
    detection.write_shapes(tmp_path / "VOCdevkit/VOC2007", 2)
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page) and page.stem != "dense-prediction"], ids=lambda page: page.stem
)
@pytest.mark.slow
def test_code_blocks_run(page, project, capsys):
    run(page, capsys)


@pytest.mark.slow
def test_code_blocks_of_the_page_on_dense_prediction_run(project, capsys):
    """On a few drawn images."""
    run(DOCS / "dense-prediction.md", capsys, **SMALLER, **{'["road", "sky", "tree"]': '["background", "road", "sky", "tree"]'})
    assert keras_t2t.hub.T2TViTImageClassifier.from_preset("t2t_tiny", num_classes=5).output_shape == (None, 5)


@pytest.mark.parametrize("page", [README, *PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    for line in commands_of(page):
        words = line.split()
        if words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2])
        elif words[:1] == ["python"]:
            assert (ROOT / words[1]).exists()
        elif words[:1] == ["keras-t2t"]:
            name = " ".join(words[1:3]) if words[1] == "data" else words[1]
            command = COMMANDS[name]
            command.make_parser(command.context_class(command)).parse_args(words[1 + len(name.split()) :])
        elif words and words[0].startswith("./"):
            assert (ROOT / words[0]).exists()


@pytest.mark.parametrize("page", [README, *PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    """So that they work where the sources are shown, too. `./scripts/docs` checks those of the site, with their anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_page_on_the_paper_refers_to_what_exists():
    """Names are written as: `name`, `name` and `name` in [`file`](../file)."""
    names = r"((?:`[\w.]+`(?:,| and|,? as)?\s+(?:[\w ]+\sas\s)?)+)in\s+\[`([\w./]+)`\]\(\.\./([\w./]+)\)"
    found = [(name, file, link) for group, file, link in re.findall(names, PAPER) for name in re.findall(r"`([\w.]+)`", group)]
    assert len(found) >= 60
    assert not [(name, file) for name, file, link in found if file != link or name not in defined_in(ROOT / file)]
    tests = {name for name, _, _ in found if name.startswith("test_")}
    assert set(re.findall(r"`(test_\w+)`", PAPER)) == tests


def defined_in(path):
    """Returns the names of the functions, classes, methods and variables of a file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= (
                {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
                if isinstance(node, ast.ClassDef)
                else set()
            )
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            names |= {
                target.id
                for target in getattr(node, "targets", [getattr(node, "target", None)])
                if isinstance(target, ast.Name)
            }
    return names


@pytest.mark.slow
def test_every_public_name_is_in_the_api_reference():
    documented = [value_of(name) for name in API] + [
        getattr(keras_t2t, function.__name__) for function in CONSTRUCTORS.values()
    ]
    missing = []
    for name in keras_t2t.__all__:
        value = getattr(keras_t2t, name)
        public = {name: value}
        if inspect.ismodule(value):
            own = [key for key, item in vars(value).items() if getattr(item, "__module__", "") == value.__name__]
            public = {f"{name}.{key}": getattr(value, key) for key in getattr(value, "__all__", own)}
        missing += [key for key, item in public.items() if not any(item is other for other in documented)]
    assert not missing


def value_of(name):
    return functools.reduce(getattr, name.split(".")[1:], keras_t2t)


@pytest.mark.parametrize("name", API)
@pytest.mark.slow
def test_what_is_in_the_api_reference_has_a_docstring(name):
    assert isinstance(value_of(name), dict) or inspect.getdoc(value_of(name))


def test_constructors_in_the_api_reference():
    rows = re.findall(r'id="keras_t2t\.(\w+)">`keras_t2t\.\1`</span> \| `(.*)` \|', (DOCS / "api" / "models.md").read_text())
    defaults = {name: inspect.signature(getattr(keras_t2t, name)).parameters["weights"].default for name, _ in rows}
    assert set(defaults) == {function.__name__ for function in CONSTRUCTORS.values()}
    assert {name: ast.literal_eval(value) for name, value in rows} == defaults


def test_extras_and_recipes_are_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    rows = re.findall(r"^\| (`.*`) \| .* \|$", (DOCS / "getting-started.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(setup["options.extras_require"])
    rows = re.findall(r"^\| (`.*`) \| .* \|$", (DOCS / "training.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {*RECIPES, "finetune"}


@pytest.mark.parametrize("row", re.findall(r"^\| `([A-Z]\w+)` \|(.* G )\|$", MODELS, re.MULTILINE), ids=lambda row: row[0])
def test_table_of_models(row):
    constructor, cells = row
    _, depth, _, heads, ratio, parameters, macs = (cell.strip().replace(",", "") for cell in cells.split("|"))
    model = variant_model(next(name for name, function in CONSTRUCTORS.items() if function.__name__ == constructor))
    config = keras_t2t.config_of(model)
    assert model.count_params() == int(parameters)
    assert macs == f"{sum(multiply_accumulates(config).values()) / 1e9:.2f} G"
    assert [int(n) for n in depth.split(" + ")] == list(config.group_depths)
    assert (config.num_heads, config.mlp_ratio) == (int(heads), float(ratio))


@pytest.mark.parametrize("row", re.findall(r"^\| `(t2t_vit\w+)` \|(.* G )\|$", MODELS, re.MULTILINE), ids=lambda row: row[0])
def test_table_of_counts(row):
    variant, cells = row
    counted = reconcile(variant)
    authors, products, openmmlab, weights_and_norms, classifier = (cell.strip() for cell in cells.split("|"))
    assert authors == f"{counted.authors / 1e9:.1f} G"
    assert openmmlab == ("" if counted.openmmlab is None else f"{counted.openmmlab / 1e9:.2f} G")
    ours = counted.products, counted.weights_and_norms, counted.class_token
    assert [products, weights_and_norms, classifier] == [f"{count / 1e9:.3f} G" for count in ours]


def test_table_of_published_weights():
    rows = re.findall(r'^\| `(\w+)` \| `"(\w+)"` \|(.*)\|$', MODELS, re.MULTILINE)
    expected = []
    for source in PUBLISHED_WEIGHTS:
        top5 = f"{source.top5:.2f}" if source.top5 else ""
        origin = f"[{'OpenMMLab' if 'openmmlab' in source.base_url else 'authors'}]({source.base_url}{source.file})"
        images = f"{source.image_size}, crop {source.preprocessing.crop_fraction}"
        cells = f" {source.top1:.2f} | {top5} | {images} | {origin} | {source.verified_by} "
        expected.append((CONSTRUCTORS[source.variant].__name__, source.name, cells))
    assert rows == expected
