"""Rules of the house that reading alone would not keep: one owner for layer names, one definition for public names, types."""

import ast
import collections
import inspect
import pathlib

import keras
import pytest

import keras_t2t
from keras_t2t.models import parts
from tests.mutations import MUTATIONS

PACKAGE = pathlib.Path(keras_t2t.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
# `images` and the prefixes are words that mean other things, too; the prefixes are looked for in what builds names.
LAYER_NAMES = {value for name, value in vars(parts).items() if name.isupper() and isinstance(value, str)}
LAYER_NAMES -= {parts.IMAGES, parts.BLOCK, parts.TRANSITION}
# The names in other people's checkpoints are not layers of ours, even where they are spelled the same.
CHECKPOINT_NAMES = {"weights/names.py": {"norm", "head"}}


def functions_of(tree):
    """Yields (name, node) of the public functions and of the public methods and constructors of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (not method.name.startswith("_") or method.name == "__init__"):
                    yield f"{node.name}.{method.name}", method


def test_no_other_file_spells_the_name_of_a_layer():
    assert {"norm", "head", "predictions", "normalization", "tokens_to_token"} <= LAYER_NAMES
    found = []
    for file, tree in FILES.items():
        if file == "models/parts.py":
            continue
        allowed = CHECKPOINT_NAMES.get(file, set())
        for node in ast.walk(tree):
            spelled = isinstance(node, ast.Constant) and node.value in LAYER_NAMES - allowed
            numbered = (
                isinstance(node, ast.JoinedStr)
                and isinstance(node.values[0], ast.Constant)
                and node.values[0].value in (parts.BLOCK, parts.TRANSITION)
            )
            if spelled or numbered:
                found.append(f"{file}:{node.lineno}")
    assert not found


def test_public_names_are_defined_once():
    """The names of the adapters to other libraries are those that their users expect: both have a `T2TViTBackbone`."""
    places = collections.defaultdict(set)
    for file, tree in FILES.items():
        adapter = next((name for name in ("cv", "hub") if pathlib.PurePath(file).with_suffix("").parts[0] == name), "")
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and node.name != "main":
                places[adapter, node.name].add(file)
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_no_function_has_the_name_of_a_module():
    modules = {pathlib.PurePath(file).stem for file in FILES} | {pathlib.PurePath(file).parent.name for file in FILES}
    functions = {name for tree in FILES.values() for name, _ in functions_of(tree) if "." not in name}
    assert not functions & modules


def test_no_class_has_the_name_of_one_of_keras():
    namespaces = (keras.layers, keras.optimizers, keras.optimizers.schedules, keras.callbacks, keras.losses, keras.metrics)
    taken = {name for namespace in namespaces for name in dir(namespace)}
    ours = {node.name for tree in FILES.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    assert not ours & taken


def test_private_parts_of_keras_are_used_in_one_file():
    found = []
    for file, tree in FILES.items():
        if file == "keras_internals.py":
            continue
        own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        for node in ast.walk(tree):
            is_private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
            if is_private and node.attr not in own:
                found.append(f"{file}:{node.lineno} {node.attr}")
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("keras.src", "keras._")):
                found.append(f"{file}:{node.lineno} {node.module}")
    assert not found


@pytest.mark.parametrize("file", sorted(FILES))
def test_public_functions_are_annotated(file):
    missing = []
    for name, node in functions_of(FILES[file]):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        unknown = [a.arg for a in arguments if a and a.annotation is None and a.arg not in ("self", "cls")]
        if unknown or (node.returns is None and not name.endswith("__init__")):
            missing.append(f"{name}({', '.join(unknown)}){'' if node.returns else ' without a return type'}")
    assert not missing


def test_mutations_apply():
    for mutation in MUTATIONS:
        assert (PACKAGE / mutation.file).read_text().count(mutation.old) == 1 and mutation.old != mutation.new, mutation
        assert (PACKAGE.parent / "tests" / mutation.tests).exists(), mutation


def test_the_package_leaks_nothing():
    """What `keras_t2t.` offers to complete is public, or a module of the package."""
    modules = {pathlib.PurePath(file).parts[0].removesuffix(".py") for file in FILES}
    names = {name for name in vars(keras_t2t) if not name.startswith("_")}
    assert names <= set(keras_t2t.__all__) | modules


def test_every_layer_has_an_example():
    for name in keras_t2t.layers.__all__:
        assert "Example:" in inspect.getdoc(getattr(keras_t2t.layers, name)), name


def test_text_files_are_utf8():
    """Without an encoding, Windows would use another one."""
    found = []
    for file, tree in FILES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", None))
            values = {
                arg.value
                for arg in (*call.args, *(keyword.value for keyword in call.keywords))
                if isinstance(arg, ast.Constant)
            }
            is_text = name in ("read_text", "write_text") or (name == "open" and values & {"r", "w", "a", "x"})
            if is_text and not values & {"utf-8", "utf-8-sig"}:
                found.append(f"{file}:{call.lineno}")
    assert not found
