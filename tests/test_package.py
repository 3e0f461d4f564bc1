"""Public names, the order of imports, and the files that are packaged."""

import ast
import configparser
import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import keras_t2t

PACKAGE = pathlib.Path(keras_t2t.__file__).parent
TESTS = pathlib.Path(__file__).parent
# Subpackages and modules in dependency order: each may import only from those before it.
LAYERS = [
    "errors",
    "extras",
    "timing",
    "figures",
    "configs",
    "variants",
    "export_formats",
    "strategies",
    "preprocessing",
    "recipes",
    "run_files",
    "assets",
    "registry",
    "runtime",
    "keras_internals",
    "imagenet",
    "layers",
    "models",
    "sharing",
    "data",
    "weights",
    "applications",
    "analysis",
    "inference",
    "exporting",
    "hub",
    "cv",
    "studies",
    "training",
    "cli",
    "__main__",
]


def test_public_names():
    assert sorted(keras_t2t.__all__) == sorted(
        [
            "VARIANTS",
            "CheckpointError",
            "DataError",
            "DownloadError",
            "ExportError",
            "ExportReport",
            "LoadReport",
            "Preprocessing",
            "T2TConfig",
            "T2TViT",
            "T2TViT7",
            "T2TViT10",
            "T2TViT12",
            "T2TViT14",
            "T2TViT14ResNeXt",
            "T2TViT14SE",
            "T2TViT14Wide",
            "T2TViT16Ghost",
            "T2TViT19",
            "T2TViT24",
            "T2TViTDense",
            "T2TViTTiny32",
            "T2TViTt14",
            "T2TViTt19",
            "T2TViTt24",
            "TrainingError",
            "ViTSmall16",
            "analysis",
            "config_of",
            "cv",
            "data",
            "decode_predictions",
            "export",
            "feature_pyramid",
            "hub",
            "labels_of",
            "layers",
            "list_models",
            "load_checkpoint",
            "load_image",
            "normalize_images",
            "open_exported",
            "optimize_for_inference",
            "predict_images",
            "preprocess_input",
            "preprocessing_of",
            "push_to_hub",
            "replace_head",
            "segmenter",
            "training",
        ]
    )
    assert all(hasattr(keras_t2t, name) for name in keras_t2t.__all__)


def test_public_names_of_analysis():
    assert keras_t2t.analysis.__all__ == [
        "Comparison",
        "Cost",
        "Reconciliation",
        "Redundancy",
        "StageCost",
        "attention_maps",
        "attention_panels",
        "attention_rollout",
        "class_evidence",
        "compare",
        "cost",
        "draw_comparison",
        "draw_features",
        "draw_growth",
        "draw_overlays",
        "feature_maps",
        "feature_pyramid",
        "growth",
        "latency",
        "multiply_accumulates",
        "reconcile",
        "redundancy",
        "to_pixels",
        "token_centers",
    ]
    assert all(hasattr(keras_t2t.analysis, name) for name in keras_t2t.analysis.__all__)


def test_imports_go_in_one_direction():
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).with_suffix("").parts
        if place == ("__init__",):
            continue
        for module in imported(path):
            source = module.split(".")[1]
            assert LAYERS.index(source) <= LAYERS.index(place[0]), f"{path} imports {module}"


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_t2t."):
            yield node.module
        if isinstance(node, ast.ImportFrom) and node.module == "keras_t2t":
            yield from (f"keras_t2t.{alias.name}" for alias in node.names if alias.name in LAYERS)


def test_configs_import_neither_keras_nor_tensorflow():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(PACKAGE / "configs.py")], check=True)


SCRIPT, MODULE = [f"{sys.prefix}/bin/keras-t2t"], [sys.executable, "-m", "keras_t2t"]
SHIPPED = "t2t_vit_tiny_32:cifar10"


@pytest.mark.parametrize(
    ("command", "arguments", "status"),
    [
        (MODULE, "--help", 0),
        (MODULE, "predict t2t_vit_14 . --output x.txt", 1),
        (SCRIPT, "--help", 0),
        (SCRIPT, "--version", 0),
        (SCRIPT, "data check --help", 0),
        (SCRIPT, "predct", 2),
        (SCRIPT, "predict --outptu x", 2),
        (SCRIPT, "predict t2t_vit_14", 2),
        (SCRIPT, "predict t2t_vit_41 .", 1),
        (SCRIPT, "predict t2t_vit_14:imagnet .", 1),
        (SCRIPT, "predict t2t_vit_14 .", 1),
        (SCRIPT, "predict . .", 1),
        (SCRIPT, f"predict {SHIPPED} . --output x.txt", 1),
        (SCRIPT, f"convert {SHIPPED} x.h5", 1),
        (SCRIPT, "train", 1),
        (SCRIPT, "train --model T2TVit41", 1),
        (SCRIPT, "train --data nowhere", 1),
        (SCRIPT, "train --data . --output x --recipe imagnet", 1),
        (SCRIPT, "train --data . --output x --set epochs", 1),
        (SCRIPT, "train --data . --output x --set epohcs=2", 1),
        (SCRIPT, "train --data . --output x --model T2TViT7 --set drop_rate=2", 1),
        (SCRIPT, "train --data . --output x --epochs 2 --set epochs=3", 1),
        (SCRIPT, "train --data . --output x --strategy miror", 1),
        (SCRIPT, "train --data . --output x --strategy mirrored --device cpu", 1),
        (SCRIPT, "data check nowhere", 1),
        (SCRIPT, "study . --output x --shard 2/1", 1),
        (SCRIPT, f"evaluate {SHIPPED} --data . --picture x.jpg", 1),
        (SCRIPT, f"export {SHIPPED} --output x.pb", 1),
        (SCRIPT, f"export {SHIPPED} --output x --format onnyx", 1),
        (SCRIPT, f"export {SHIPPED} --output x.onnx --quantize int4", 1),
        (SCRIPT, f"export {SHIPPED} --output x.onnx --opset 3", 1),
        (SCRIPT, f"benchmark {SHIPPED} --picture x.jpg", 1),
        (SCRIPT, f"attention {SHIPPED} . --output x.jpg", 1),
        (SCRIPT, "cost t2t_vit_14 --size large", 1),
        (SCRIPT, f"compare {f'{SHIPPED} ' * 9} --image .", 1),
    ],
)
def test_help_and_usage_errors_need_not_wait_for_tensorflow(command, arguments, status, tmp_path):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run([*command, *arguments.split()], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == status
    assert ("Error: " in result.stderr) == (status == 1)
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert "keras_t2t.cli.app" in imported
    assert not imported & {"keras", "tensorflow", "jax", "h5py", "keras_t2t.layers"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_other_programs_register_the_layers(tmp_path):
    """A package that imports this one has the same `sys.argv` while runpy looks for it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import keras_t2t")
    (tmp_path / "mine" / "train.py").write_text(
        "import keras; print(keras.saving.get_registered_object('keras_t2t>EncoderBlock'))"
    )
    command = [sys.executable, "-m", "mine.train", "keras_t2t"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert result.stdout == "<class 'keras_t2t.layers.encoder_block.EncoderBlock'>\n"


def test_other_backends_do_not_import_tensorflow():
    code = "import sys, keras_t2t; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "KERAS_BACKEND": "jax"})


@pytest.mark.slow
def test_optional_packages_are_imported_lazily():
    code = "import sys, keras_t2t; print(*{'keras_cv', 'keras_hub', 'pycocotools', 'tensorflow_text'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "missing", "message"),
    [
        ("hub", "keras_hub", 'keras_t2t.hub needs KerasHub: pip install "keras-t2t[hub]"'),
        ("cv", "keras_cv", 'keras_t2t.cv needs keras-cv: pip install "keras-t2t[cv]"'),
    ],
)
@pytest.mark.slow
def test_adapters_say_what_to_install(module, missing, message):
    code = f"import sys; sys.modules[{missing!r}] = None; import keras_t2t; keras_t2t.{module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip().endswith(f"ImportError: {message}")


def test_a_package_that_is_installed_but_broken(tmp_path, monkeypatch):
    """Its own message is shown, instead of advice to install it."""
    (tmp_path / "broken.py").write_text("import a_package_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    message = "^X needs broken, which is installed but cannot be imported: No module named 'a_package_that_is_missing'$"
    with pytest.raises(ImportError, match=message):
        keras_t2t.extras.import_extra("broken", "X needs broken", "train")


def test_extras_install_together():
    subprocess.run([sys.executable, "-m", "pip", "check"], check=True)


def test_all_packages_and_data_files_are_declared():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    elsewhere = {line.split("=")[0].strip() for line in setup["options"]["package_dir"].split("\n")}
    declared = {
        "/".join([*package.split(".")[1:], name])
        for package, names in setup["options.package_data"].items()
        for name in names.split()
        if package not in elsewhere
    }
    found = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    assert {path.relative_to(PACKAGE).as_posix() for path in found} == declared
    folders = {path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")}
    packages = {".".join(folder.parts) for folder in folders} | {"keras_t2t.assets.images", "keras_t2t.assets.saved_models"}
    assert set(setup["options"]["packages"].split()) == packages


def test_the_lowest_versions_are_tested():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    required = dict(line.split(">=") for line in setup["options"]["install_requires"].split() if ">=" in line)
    pinned = dict(line.split("==") for line in (TESTS / "lowest-versions.txt").read_text().split() if "==" in line)
    assert {name: version.rpartition(".")[0] for name, version in pinned.items()} == required


def test_the_distributions_have_the_package_and_no_tests(tmp_path):
    """The source distribution would otherwise have the modules of the tests without their data."""
    root = PACKAGE.parent
    for path in [*root.glob("*.*"), *map(root.joinpath, ("LICENSE", "NOTICE"))]:
        if path.is_file():
            shutil.copy(path, tmp_path)
    for folder in ("keras_t2t", "examples", "saved_models", "tests"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    code = "import setuptools.build_meta as backend; print(); print(backend.build_sdist('dist'), backend.build_wheel('dist'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    source, wheel = (tmp_path / "dist" / name for name in result.stdout.split()[-2:])
    modules = {path.relative_to(root).as_posix() for path in PACKAGE.rglob("*.py")}
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not any(name.startswith("tests") for name in names)
    assert modules | {"examples/images/frog.jpg", "saved_models/t2t_vit_tiny_32_cifar10/model.keras"} <= names
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names} == {"keras_t2t", f"keras_t2t-{keras_t2t.__version__}.dist-info"}
    assets = {"images/frog.jpg", "saved_models/t2t_vit_tiny_32_cifar10/model.keras", "imagenet_classes.tsv"}
    assert modules | {f"keras_t2t/assets/{name}" for name in assets} <= names


def test_list_models():
    assert keras_t2t.list_models() == list(keras_t2t.VARIANTS)
    pretrained = keras_t2t.list_models(pretrained=True)
    assert pretrained[0] == "t2t_vit_7:imagenet" and pretrained[-1] == "t2t_vit_tiny_32:cifar10" and len(pretrained) == 18


def test_the_description_on_pypi_has_no_broken_links(tmp_path):
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "site", "node_modules", "runs")
    shutil.copytree(PACKAGE.parent, tmp_path / "project", ignore=ignored)
    code = "import sys, setuptools.build_meta as backend; backend.prepare_metadata_for_build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path / "project", check=True, capture_output=True)
    (path,) = tmp_path.glob("*.dist-info/METADATA")
    metadata = email.message_from_string(path.read_text())
    links = re.findall(r"\]\((.*?)\)", metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown" and "## Quick start" in metadata.get_payload()
    assert links and all(link.startswith("https://") for link in links)
