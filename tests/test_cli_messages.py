"""What the command line says: without TensorFlow's messages, in options, with hints, in tables that fold."""

import inspect
import os
import pathlib
import re
import subprocess
import sys

import pytest
import typer
from rich.table import Table

import keras_t2t
from keras_t2t import errors
from keras_t2t.cli import app, messages
from keras_t2t.variants import VARIANTS, find_variant
from tests import test_cli
from tests.conftest import seeded_parameters

run, photo, write_colors = test_cli.run, test_cli.photo, test_cli.write_colors
SHIPPED = "t2t_vit_tiny_32:cifar10"


def environment(**variables):
    """Returns the environment variables of a user who has not chosen which messages of TensorFlow to see."""
    return {**{name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}, **variables}


def start(tmp_path, *arguments, **variables):
    """Runs a command in a process of its own, as TensorFlow writes some messages when it is imported."""
    command = [sys.executable, "-m", "keras_t2t", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(**variables))


@pytest.mark.slow
def test_messages_of_tensorflow_are_shown_on_request_only(photo, tmp_path):
    assert start(tmp_path, "export", SHIPPED, "--output", "a/b/m.tflite").stderr == ""
    result = start(tmp_path, "predict", "a/b/m.tflite", photo)
    assert (result.returncode, result.stderr) == (0, "")
    # With `--verbose`, LiteRT tells how it runs the model; so it does if the user has chosen a level.
    assert "XNNPACK" in start(tmp_path, "--verbose", "predict", "a/b/m.tflite", photo).stderr
    assert "XNNPACK" in start(tmp_path, "predict", "a/b/m.tflite", photo, TF_CPP_MIN_LOG_LEVEL="0").stderr


@pytest.mark.slow
def test_other_commands_show_no_messages_either(photo, tmp_path):
    """tests/journeys/test_command_line.py runs the rest. All of these run in one process, to save time."""
    commands = (
        ("info",),
        ("convert", SHIPPED, "model.keras"),
        ("cost", "model.keras", "--latency"),
        ("attention", SHIPPED, "photo.png"),
        ("compare", SHIPPED, "model.keras", "--image", "photo.png"),
        ("benchmark", "model.keras", "--seconds", "0.01"),
    )
    program = f"""
import sys
sys.argv[0] = "keras-t2t"
from keras_t2t import cli
for sys.argv[1:] in {commands}:
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, sys.argv
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_a_corrupt_file_stops_training_with_one_line(tmp_path):
    write_colors(tmp_path / "colors")
    (tmp_path / "colors" / "red" / "3.png").write_bytes(b"no image")
    result = start(tmp_path, "train", "--data", "colors", "--model", "t2t_vit_tiny_32", "--output", "run")
    assert (result.returncode, result.stderr) == (
        1,
        "Error: Cannot read colors/red/3.png: not an image (starts with b'no image'). Remove it, or use "
        "--set skip_bad_files=true\n",
    )


def test_version(run):
    assert run("--version")[:2] == (0, f"keras-t2t {keras_t2t.__version__}\n")


def commands_of(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands_of(typer.main.get_command(app.app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_its_parser_accepts(name):
    line = COMMANDS[name].help.splitlines()[-1]
    assert line.startswith(f"Example: keras-t2t {name} ")
    arguments = line.removeprefix(f"Example: keras-t2t {name} ").split()
    names = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= names


def test_commands_are_grouped(run):
    output = run("--help")[1]
    for panel in ("Models", "Data and training", "Export", "Look inside"):
        assert f"─ {panel} ─" in output
    assert "─ Commands ─" not in output
    assert "--install-completion" in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_tensorflow_without_its_messages_before_anything_else(name):
    before, found, _ = inspect.getsource(COMMANDS[name].callback).partition("    load_libraries()\n")
    assert found and "    from " not in before and "    import " not in before


def test_errors_speak_of_options():
    parameters = COMMANDS["export"].params
    for message, expected in (
        (
            "Expected batch_size to be a number; received: batch_size=3",
            "Expected --batch-size to be a number; received: --batch-size 3",
        ),
        ("with force=True, without quantize=None", "with --force, without no --quantize"),
        ("the format onnx in a/batch_size=3/format", "the format onnx in a/batch_size=3/format"),
        ("received: epochs=3", "received: epochs=3"),
        ("use cache=True in the recipe", "use cache=True in the recipe"),
    ):
        assert messages.in_options(message, parameters) == expected
    hint = messages.in_options("use cache=True in the recipe, or less", COMMANDS["train"].params)
    assert hint == "use --set cache=true, or less"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999_999, "999,999"),
        (1_000_000, "1.00 M"),
        (21_545_550, "21.5 M"),
        (420_123_456, "420 M"),
        (9_996_000, "10.0 M"),
        (999_600_000, "1.00 G"),
        (1_234_000_000_000, "1,230 G"),
        (4_523_000_000, "4.52 G"),
        (12_690_000_000, "12.7 G"),
    ],
)
def test_large_numbers_have_units(number, text):
    assert errors.with_unit(number) == text


@pytest.mark.parametrize(
    ("name", "choices", "hint"),
    [
        ("nmae", ["name", "names", "size"], ". Did you mean name?"),
        ("T2T_VIT_14", ["t2t_vit_7", "t2t_vit_14"], ". Did you mean t2t_vit_14?"),
        ("t2tvit14", ["T2TViT14", "t2t_vit_7"], ". Did you mean T2TViT14?"),
        ("resnet", ["t2t_vit_7"], ""),
        (None, ["t2t_vit_7"], ""),
        (14, [], ""),
        (pathlib.Path("names.yaml"), ["names.yml"], ". Did you mean names.yml?"),
    ],
)
def test_did_you_mean(name, choices, hint):
    assert errors.did_you_mean(name, choices) == hint


def test_counted():
    assert [errors.counted(*case) for case in ((1, "file"), (0, "file"), (1200, "class"))] == [
        "1 file",
        "0 files",
        "1,200 classes",
    ]


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (
            ("predict", "t2t_vit_tiny_23:cifar10", "photo.png"),
            "received: 't2t_vit_tiny_23:cifar10'. Did you mean t2t_vit_tiny_32?",
        ),
        (("cost", "t2t_vit_tiny_23:a/b.pth"), "received: 't2t_vit_tiny_23:a/b.pth'. Did you mean t2t_vit_tiny_32?"),
        (("cost", "T2TVit7"), "received: 'T2TVit7'. Did you mean T2TViT7?"),
        (("predict", "t2t_vit_tiny_32:cifra10", "photo.png"), "received: 't2t_vit_tiny_32:cifra10'. Did you mean cifar10?"),
        (
            ("predict", "t2t_vit_tiny_32:phoot.png", "photo.png"),
            "received: 't2t_vit_tiny_32:phoot.png'. Did you mean photo.png?",
        ),
        (("predict", SHIPPED, "photo.pgn"), "There is no file or folder photo.pgn. Did you mean photo.png?"),
        (("train", "--data", "photo.pgn", "--output", "run"), "There is no file or folder photo.pgn. Did you mean photo.png?"),
        (("evaluate", SHIPPED, "--data", "photo.pgn"), "There is no file or folder photo.pgn. Did you mean photo.png?"),
        (("data", "check", "photo.pgn"), "There is no file or folder photo.pgn. Did you mean photo.png?"),
        (("train", "--show", "--recipe", "imagnet"), "received: 'imagnet'. Did you mean imagenet?"),
        (("train", "--show", "--recipe", "imagenet", "--set", "epohcs=2"), ". Did you mean epochs?"),
    ],
)
def test_mistyped_names(run, photo, arguments, end):
    status, _, error = run(*arguments)
    assert status == 1 and error.endswith(f"{end}\n")


def test_constructors_name_variants():
    for name, variant in VARIANTS.items():
        assert find_variant(variant.constructor) is find_variant(name) is variant
    assert keras_t2t.training.load_recipe("imagenet", model="T2TViTTiny32").image_size == 32
    with pytest.raises(
        ValueError, match=r"^Invalid variant: expected one of t2t_vit_7, .*; received: 'T2TVit14'. Did you mean T2TViT14\?$"
    ):
        keras_t2t.T2TViT("T2TVit14")
    with pytest.raises(ValueError, match=r"^Invalid variant: expected one of .*; received: \{'depth': 2\}$"):
        keras_t2t.T2TViT({"depth": 2})


def test_weights_of_another_variant_are_recognized():
    model = keras_t2t.T2TViT("t2t_vit_10")
    with pytest.raises(keras_t2t.CheckpointError) as error:
        keras_t2t.load_checkpoint(model, seeded_parameters(VARIANTS["t2t_vit_7"].config, (224, 224)))
    assert str(error.value) == (
        "The checkpoint does not fit the model 't2t_vit'. No weights were loaded from a mapping. "
        "These are the weights of t2t_vit_7"
    )
    with pytest.raises(keras_t2t.CheckpointError, match=r"wrong shape: head\.bias"):  # the same variant with other classes
        keras_t2t.load_checkpoint(model, seeded_parameters(VARIANTS["t2t_vit_10"].config, (224, 224), classes=3))


def test_tables_fold(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table = Table("name", "value")
    table.add_row("x" * 40, "1")
    app.print_table(table)
    output = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)  # without bold type
    assert output.count("x") == 40
    assert max(map(len, output.splitlines())) <= 30


@pytest.mark.slow
def test_a_user_can_ask_python_for_warnings():
    code = "import warnings; from keras_t2t.cli.libraries import set_verbosity; set_verbosity(False); warnings.warn('seen')"
    for options, seen in (((), False), (("-W", "always"), True)):
        command = [sys.executable, *options, "-c", f"import sys; sys.argv[0] = 'keras-t2t'; {code}"]
        assert ("seen" in subprocess.run(command, capture_output=True, text=True, check=True).stderr) == seen
