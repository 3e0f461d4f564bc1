"""Exported files in their own runtimes against the model, their operations, and the errors of `export`."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t import assets, export_formats
from keras_t2t.exporting import exporter, open_exported
from keras_t2t.exporting.graph import frozen_function
from keras_t2t.exporting.report import comparable, examine
from keras_t2t.exporting.samples import images_for
from keras_t2t.inference import probabilities
from keras_t2t.models import spec_of
from keras_t2t.models.graph import find_head, layers_of
from keras_t2t.runtime import Runtime
from keras_t2t.variants import VARIANTS
from tests.conftest import SMALL_CONFIGS, mostly_slow, outputs_of, relative_error
from tests.inference.test_optimize import difficult_images, small_model

FORMATS = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml", "saved_model": "model"}


@pytest.fixture(scope="module")
def shipped():
    return keras_t2t.T2TViTTiny32(weights="cifar10")


@pytest.fixture(scope="module")
def exported(shipped, tmp_path_factory):
    """Returns a function that exports the shipped model to a format with default arguments, once. It returns the report."""
    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda format: keras_t2t.export(shipped, folder / FORMATS[format]))


@pytest.mark.parametrize("kind", mostly_slow(SMALL_CONFIGS, "performer"))
def test_every_kind_of_model_in_every_format(kind, tmp_path, monkeypatch):
    """With images that are not square. `python -m tests.exporting.every_variant` tests the variants at their own sizes."""
    model = small_model(kind, classes=7)
    images = difficult_images(31, 23, 3)
    outputs = outputs_of(model, images)
    onnx_file = tmp_path / FORMATS["onnx"]  # OpenVINO reads it, and it need not be made twice
    monkeypatch.setattr("keras_t2t.exporting.openvino.to_onnx", lambda _, path, *__, **___: shutil.copy(onnx_file, path))
    for format, name in FORMATS.items():
        report = keras_t2t.export(model, tmp_path / name)
        assert report.format == format
        assert not any(":" in op for op in report.ops)
        runtime = open_exported(tmp_path / name)
        assert runtime.input_shape == (1 if format == "tflite" else None, 31, 23, 3)
        expected, received = (comparable(x, runtime.spec.output) for x in (outputs, runtime.run(images)))
        assert runtime.spec == spec_of(model)
        assert relative_error(received, expected) < 1e-4, format


@pytest.mark.slow
def test_onnx_without_an_optimization_that_fails(tmp_path, monkeypatch):
    import tf2onnx.optimizer

    calls = []

    def failing():
        calls.append(os.environ.get("TF2ONNX_CATCH_ERRORS"))
        raise RuntimeError

    monkeypatch.setitem(tf2onnx.optimizer._optimizers, "merge_duplication", failing)
    assert keras_t2t.export(small_model("performer", classes=7), tmp_path / "model.onnx").difference < 1e-4
    assert calls[:2] == ["FALSE", None]
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "TRUE")  # which means the same
    with pytest.raises(RuntimeError):
        keras_t2t.export(small_model("performer", classes=7), tmp_path / "other.onnx")
    assert os.environ["TF2ONNX_CATCH_ERRORS"] == "TRUE"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.slow
def test_384_pixels(format, tmp_path):
    config = dataclasses.replace(VARIANTS["t2t_vit_7"].config, depth=1)
    model = keras_t2t.T2TViT(config, input_shape=(384, 384, 3), classes=3)
    assert keras_t2t.export(model, tmp_path / FORMATS[format]).difference < 1e-4


@pytest.mark.parametrize("format", mostly_slow(FORMATS))
def test_the_same_model_gives_the_same_bytes(format, shipped, exported, tmp_path):
    def content(path):
        files = [file for top in export_formats.files_of(path) for file in (top, *top.rglob("*")) if file.is_file()]
        return {file.relative_to(path.parent): file.read_bytes() for file in files}

    first, second = (
        content(report.path) for report in (exported(format), keras_t2t.export(shipped, tmp_path / FORMATS[format]))
    )
    assert first == second
    assert len(first) == {"openvino": 2, "saved_model": 4}.get(format, 1)


@pytest.mark.parametrize(
    ("quantize", "fraction", "agreement"),
    mostly_slow([("float16", 0.52, 1.0), ("int8", 0.32, 0.9), ("full_int8", 0.34, 0.9)], ("int8", 0.32, 0.9)),
)
def test_quantized_tflite(quantize, fraction, agreement, shipped, exported, tmp_path):
    exact = exported("tflite")
    calibration = assets.folder("images") if quantize == "full_int8" else None
    report = keras_t2t.export(shipped, tmp_path / "quantized.tflite", quantize=quantize, calibration=calibration)
    assert report.size < fraction * exact.size
    assert report.agreement >= agreement
    assert exact.difference < 1e-5 < report.difference


@pytest.mark.slow
def test_measured_ranges_do_not_depend_on_the_names_of_blocks(shipped, tmp_path):
    def clone(layer):
        number = layer.name.removeprefix("block")
        name = f"my{number}_" if isinstance(layer, keras_t2t.layers.EncoderBlock) else layer.name
        return layer.from_config({**layer.get_config(), "name": name})

    renamed = keras.models.clone_model(shipped, clone_function=clone)
    renamed.set_weights(shipped.get_weights())
    report = keras_t2t.export(renamed, tmp_path / "m.tflite", quantize="full_int8", calibration=assets.folder("images"))
    assert report.ops["QUANTIZE"] == report.ops["DEQUANTIZE"] == 4 * 4 + 5


def test_sensitive_operations_stay_in_float32(shipped, tmp_path):
    """Only the products of the encoder blocks use measured ranges: 4 in each block, 5 in the block of the class token."""
    path = tmp_path / "model.tflite"
    ops = keras_t2t.export(shipped, path, quantize="full_int8", calibration=assets.folder("images")).ops
    assert ops["QUANTIZE"] == ops["DEQUANTIZE"] == 4 * 4 + 5
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    filters = [details[op["inputs"][1]] for op in interpreter._get_ops_details() if op["op_name"] == "CONV_2D"]
    assert [np.dtype(detail["dtype"]).name for detail in filters] == 4 * ["float32"] + ["int8"]  # four belong to a norm
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("EXP", "DIV", "RSQRT", "MEAN", "SOFTMAX", "BATCH_MATMUL"):
            assert {np.dtype(details[i]["dtype"]).name for i in op["outputs"]} == {"float32"}, op["op_name"]


@pytest.mark.slow
def test_onnx_int8(shipped, exported, tmp_path):
    report = keras_t2t.export(shipped, tmp_path / "quantized.onnx", quantize="int8")
    assert report.size < 0.4 * exported("onnx").size
    assert report.agreement >= 0.9
    assert report.ops["MatMulInteger"] == 25
    assert not any(":" in op for op in report.ops)


@pytest.mark.parametrize(
    ("name", "least", "most"), mostly_slow([("model", 1e-3, 0.1), ("model.xml", 1e-5, 0.1)], ("model", 1e-3, 0.1))
)
def test_bfloat16(name, least, most, shipped, tmp_path):
    """Processors without bfloat16 read such an OpenVINO file as one in float16."""
    report = keras_t2t.export(shipped, tmp_path / name, quantize="bfloat16")
    weights = tmp_path / (f"{name}/variables/variables.data-00000-of-00001" if name == "model" else "model.bin")
    assert weights.stat().st_size < 0.52 * 4 * shipped.count_params()
    assert least < report.difference < 0.1
    assert report.agreement == 1.0
    runtime = open_exported(report.path)
    assert runtime.spec == spec_of(shipped)
    images = images_for(shipped)
    np.testing.assert_allclose(runtime.run(images), outputs_of(shipped, images), atol=0.1)


@pytest.mark.slow
def test_openvino_precisions(shipped, tmp_path):
    import openvino

    for quantize, fraction, precision in ((None, 1.02, "f32"), ("float16", 0.51, "f32"), ("bfloat16", 0.51, "bf16")):
        report = keras_t2t.export(shipped, tmp_path / "model.xml", quantize=quantize, force=True)
        assert (tmp_path / "model.bin").stat().st_size < fraction * 4 * shipped.count_params()
        assert report.size == sum((tmp_path / name).stat().st_size for name in ("model.bin", "model.xml"))
        assert report.difference < {None: 1e-5, "float16": 1e-2, "bfloat16": 0.1}[quantize]
        model = openvino.Core().read_model(tmp_path / "model.xml")
        assert model.get_rt_info(["keras_t2t", "precision"]).astype(str) == precision
        assert (report.ops["Gelu"], report.ops["MVN"], report.ops["SoftMax"]) == (6, 11, 6)
    assert sorted(os.listdir(tmp_path)) == ["model.bin", "model.xml"]
    (tmp_path / "model.xml").unlink()
    with pytest.raises(FileExistsError, match=r"model\.bin already exists; replace it with force=True"):
        keras_t2t.export(shipped, tmp_path / "model.xml")


def test_onnx_has_fused_operations_of_opset_20(exported):
    import onnx

    ops = exported("onnx").ops
    assert {"Erf", "Erfc"}.isdisjoint(ops)
    assert (ops["Gelu"], ops["LayerNormalization"], ops["Softmax"]) == (6, 11, 6)
    model = onnx.load(exported("onnx").path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


@pytest.mark.parametrize(
    ("opset", "quantize", "erf", "gelu", "norm"),
    [(13, None, 4, 0, 0), (13, "int8", 6, 0, 0), (17, None, 4, 0, 0), (19, None, 4, 0, 6), (22, "int8", 0, 6, 11)],
)
@pytest.mark.slow
def test_onnx_opsets(opset, quantize, erf, gelu, norm, shipped, tmp_path):
    import onnx

    model = shipped if quantize else small_model("performer", classes=7)  # random weights suffer from 8 bits
    report = keras_t2t.export(model, tmp_path / "model.onnx", opset=opset, quantize=quantize)
    assert report.difference < (0.1 if quantize else 1e-5)
    assert tuple(report.ops.get(name, 0) for name in ("Erf", "Gelu", "LayerNormalization")) == (erf, gelu, norm)
    assert [(entry.domain, entry.version) for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [("", opset)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.slow
def test_uint8_images(format, tmp_path):
    path = tmp_path / FORMATS[format]
    assert keras_t2t.export(small_model("performer", classes=7), path, input_dtype="uint8").difference < 1e-4
    assert open_exported(path).input_dtype == "uint8"


@pytest.mark.slow
def test_tflite_batch_size(shipped, tmp_path):
    path = tmp_path / "model.tflite"
    keras_t2t.export(shipped, path, batch_size=4)
    runtime = open_exported(path)
    assert runtime.input_shape == (4, 32, 32, 3)
    images = images_for(shipped)  # ten images, so the last batch has to be padded
    np.testing.assert_allclose(runtime.run(images), outputs_of(shipped, images), atol=1e-5)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.slow
def test_tflite_file_for_any_batch_size(quantize, shipped, tmp_path):
    path = tmp_path / "model.tflite"
    keras_t2t.export(shipped, path, batch_size=None, quantize=quantize)
    runtime = open_exported(path)
    assert runtime.input_shape == (None, 32, 32, 3)
    images = images_for(shipped)
    expected = outputs_of(shipped, images)
    for count in (1, 7, 3):
        np.testing.assert_allclose(runtime.run(images[:count]), expected[:count], atol=0.1 if quantize else 1e-5)


@pytest.mark.slow
def test_features_and_logits(tmp_path):
    features = small_model("performer", include_top=False)
    report = str(keras_t2t.export(features, tmp_path / "features.onnx"))
    assert "features differ by up to" in report and "of the largest feature" in report and "top class" not in report
    images = difficult_images(31, 23, 3)
    received = open_exported(tmp_path / "features.onnx").run(images)
    assert relative_error(received, outputs_of(features, images)) < 1e-5
    logits = small_model("transformer", classes=7, classifier_activation=None, include_preprocessing=False)
    assert keras_t2t.export(logits, tmp_path / "logits.tflite").difference < 1e-4


@pytest.mark.slow
def test_optimized_model_is_exported_unchanged(tmp_path):
    optimized = keras_t2t.optimize_for_inference(small_model("ghost", classes=7))
    assert keras_t2t.export(optimized, tmp_path / "model.tflite").difference < 1e-4


@pytest.mark.slow
def test_labels_are_in_the_file(shipped, exported, tmp_path):
    for format in FORMATS:
        assert open_exported(exported(format).path).spec.labels == keras_t2t.labels_of(shipped)
    without = small_model("performer", classes=7)
    keras_t2t.export(without, tmp_path / "model.onnx")
    assert open_exported(tmp_path / "model.onnx").spec.labels is None
    keras_t2t.replace_head(shipped, ["left\u2028side", "two\nlines"]).save(tmp_path / "unusual.keras")
    unusual = keras.saving.load_model(tmp_path / "unusual.keras")
    keras_t2t.export(unusual, tmp_path / "unusual.onnx")
    assert open_exported(tmp_path / "unusual.onnx").spec.labels == ("left\u2028side", "two\nlines")


@pytest.mark.slow
def test_plain_tensorflow_classifies_jpeg_files(shipped, exported, tmp_path):
    """In a process that does not import this package."""
    files = sorted(assets.folder("images").glob("*.jpg"))
    program = """
import json, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
outputs = model.signatures["classify"](encoded=tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
assert not any(name.startswith("keras_t2t") for name in sys.modules)
print(json.dumps([[label.decode() for label in row] for row in outputs["labels"].numpy().tolist()]))
print(json.dumps(outputs["scores"].numpy().tolist()))
"""
    command = [sys.executable, "-c", program, str(exported("saved_model").path), *map(str, files)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    labels, scores = json.loads(output[0]), np.array(json.loads(output[1]))
    expected = outputs_of(shipped, images_for(shipped))
    order = np.argsort(-expected, axis=1)[:, :5]
    assert labels == [[keras_t2t.labels_of(shipped)[i] for i in row] for row in order]
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"path": "model.pb"},
            ValueError,
            "Expected format to be one of saved_model, tflite, onnx, openvino; received: format=None",
        ),
        ({"path": "model.tflite", "format": "coreml"}, ValueError, "received: format='coreml'"),
        ({"path": "model.bin", "format": "onnx"}, ValueError, "Expected a file name ending in .onnx for the format onnx"),
        (
            {"path": "model.bin", "format": "openvino"},
            ValueError,
            "Expected a file name ending in .xml for the format openvino",
        ),
        (
            {"path": "model.tflite", "quantize": "int4"},
            ValueError,
            "None, float16, int8, full_int8 for tflite; received: quantize='int4'",
        ),
        ({"path": "model", "quantize": "int8"}, ValueError, "Expected quantize to be one of None, bfloat16 for saved_model"),
        (
            {"path": "model.tflite", "quantize": "full_int8"},
            ValueError,
            "Expected calibration=IMAGES if and only if .* received: none and quantize='full_int8'",
        ),
        (
            {"path": "model.tflite", "calibration": "."},
            ValueError,
            "only if quantize='full_int8'; received: calibration images",
        ),
        (
            {"path": "model.onnx", "batch_size": 3},
            ValueError,
            "Expected batch_size to be given only for tflite; the format is onnx",
        ),
        (
            {"path": "model.onnx", "batch_size": None},
            ValueError,
            "Expected batch_size to be given only for tflite; the format is onnx",
        ),
        ({"path": "model.onnx", "opset": 12}, ValueError, "Expected opset to be at least 13; received: opset=12"),
        (
            {"path": "model.tflite", "opset": 13},
            ValueError,
            "Expected opset to be given only for onnx; received: opset=13 and the format tflite",
        ),
        (
            {"path": "model.onnx", "input_dtype": "int32"},
            ValueError,
            "Expected input_dtype to be one of float32, uint8; received: input_dtype='int32'",
        ),
        ({"path": "nowhere/model.onnx"}, FileNotFoundError, "There is no folder"),
        ({"path": "empty/../taken.onnx"}, FileExistsError, "already exists; replace it with force=True"),
        ({"path": "model [1]"}, ValueError, r"to have none of the characters \[ \] \* \?; received: .*model \[1\]"),
        ({"path": "model.onnx", "samples": ["a.png"]}, ValueError, r"an array of images, or a folder; received: \['a\.png'\]"),
        ({"path": "model.onnx", "samples": "empty"}, ValueError, "Expected a folder with images"),
        (
            {"path": "model.onnx", "samples": np.zeros((2, 32, 31, 3))},
            ValueError,
            r"Expected images of shape \(n, 32, 32, 3\)",
        ),
        ({"path": "model.tflite", "tolerance": 1e-12}, keras_t2t.ExportError, "more than the tolerance of 1.0e-12"),
        (
            {"path": "model.tflite", "quantize": "int8", "tolerance": 1.01},
            keras_t2t.ExportError,
            "less than the tolerance of 101.0%",
        ),
    ],
)
def test_errors_leave_no_file_behind(arguments, error, message, shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("empty").mkdir()
    pathlib.Path("taken.onnx").write_text("mine")
    with pytest.raises(error, match=message):
        keras_t2t.export(shipped, **arguments)
    assert sorted(os.listdir()) == ["empty", "taken.onnx"]
    assert pathlib.Path("taken.onnx").read_text() == "mine"


def test_rejects_other_models_and_models_without_an_image_size(tmp_path):
    theirs = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.export(theirs, tmp_path / "model.tflite")
    with pytest.raises(ValueError, match="Build the model with `input_shape`"):
        keras_t2t.export(keras_t2t.T2TViTTiny32(include_top=False), tmp_path / "model.tflite")


def test_refuses_other_backends(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    message = r"^Export needs the Keras backend tensorflow; received: 'jax'\. .* `KERAS_BACKEND=tensorflow keras-t2t export "
    with pytest.raises(ValueError, match=message):
        keras_t2t.export(shipped, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_error_says_how_to_install_missing_packages(shipped, tmp_path, monkeypatch):
    monkeypatch.setitem(export_formats.PACKAGES, "onnx", ("onnx", "no_such_package"))
    with pytest.raises(ImportError, match=r'Files of this format need no-such-package: pip install "keras-t2t\[export\]"'):
        keras_t2t.export(shipped, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    (tmp_path / "taken.xml").touch()
    message = r'Files of this format need openvino: pip install "keras-t2t\[openvino\]"'
    with pytest.raises(ImportError, match=message):
        keras_t2t.export(shipped, tmp_path / "model.xml")
    with pytest.raises(ImportError, match=message):
        open_exported(tmp_path / "taken.xml")


def test_rejects_tflite_operations_that_are_not_built_in(shipped, tmp_path, monkeypatch):
    """The converter can write files with TensorFlow (Flex) operations."""

    def naive(model, path, *_):
        import tensorflow as tf

        windows = keras.layers.Lambda(lambda x: tf.image.extract_patches(x, [1, 3, 3, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"))
        converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential([keras.Input((32, 32, 3)), windows]))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        path.write_bytes(converter.convert())

    monkeypatch.setattr(exporter, "to_tflite", naive)
    with pytest.raises(keras_t2t.ExportError, match="not built into its runtime: custom:Flex"):
        keras_t2t.export(shipped, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "foreign"), [("onnx", "com.example:Mystery"), ("saved_model", "custom:EagerPyFunc")])
def test_rejects_foreign_operations_of_other_formats(format, foreign, shipped, tmp_path, monkeypatch):
    def with_domain(model, path, spec, *_):
        import onnx

        plain(model, path, spec)
        file = onnx.load(path)
        file.graph.node[0].domain, file.graph.node[0].op_type = "com.example", "Mystery"
        onnx.save(file, path)

    def with_python(model, path, *_):
        import tensorflow as tf

        module = tf.Module()
        spec = tf.TensorSpec((None, 32, 32, 3), name="images")
        module.serve = tf.function(lambda x: {"scores": tf.py_function(lambda x: x[:, 0, 0], [x], "float32")}, [spec])
        tf.saved_model.save(module, str(path), {"serving_default": module.serve})

    plain = getattr(exporter, f"to_{format}")
    monkeypatch.setattr(exporter, f"to_{format}", with_domain if format == "onnx" else with_python)
    with pytest.raises(keras_t2t.ExportError, match=f"not built into its runtime: {foreign}"):
        keras_t2t.export(shipped, tmp_path / FORMATS[format])
    assert not list(tmp_path.iterdir())


def test_rejects_nan_outputs(tmp_path, monkeypatch):
    """Older versions of TensorFlow produced such files from functions whose weights were not constants."""

    def broken(model, path, spec, *_):
        copy = keras.models.clone_model(model)
        copy.set_weights([np.full_like(weight, np.nan) for weight in copy.get_weights()])
        to_tflite(copy, path, spec)

    to_tflite = exporter.to_tflite
    monkeypatch.setattr(exporter, "to_tflite", broken)
    with pytest.raises(keras_t2t.ExportError, match="by nan of the largest logit"):
        keras_t2t.export(small_model("convolution", classes=7), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_frozen_function_has_weights_as_constants(shipped):
    function = frozen_function(keras_t2t.optimize_for_inference(shipped), 1)
    assert not function.captured_inputs
    constants = sum(op.outputs[0].shape.num_elements() or 0 for op in function.graph.get_operations() if op.type == "Const")
    assert constants >= shipped.count_params() - 3 * 64 * 147  # some weights are folded into others


def test_tflite_has_no_dynamic_shapes_and_no_transposes_of_five_axes(exported):
    path, ops = exported("tflite").path, exported("tflite").ops
    assert {"SHAPE", "GATHER", "REDUCE_PROD", "BROADCAST_TO"}.isdisjoint(ops)
    assert (ops["GELU"], ops["FULLY_CONNECTED"]) == (6, 27)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    ranks = {detail["index"]: len(detail["shape"]) for detail in interpreter.get_tensor_details()}
    transposes = [op for op in interpreter._get_ops_details() if op["op_name"] == "TRANSPOSE"]
    assert transposes
    assert max(ranks[i] for op in transposes for i in op["outputs"]) == 4


@pytest.mark.slow
def test_gelu_of_a_custom_head_is_fused(tmp_path):
    backbone = small_model("performer", include_top=False, pooling="token")
    model = keras.Model(backbone.input, keras.layers.Dense(5, activation="gelu")(backbone.output))
    assert keras_t2t.export(model, tmp_path / "model.onnx").ops["Gelu"] == 5


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.xml"])
def test_rejects_damaged_files(name, tmp_path):
    (tmp_path / name).write_bytes(b"not a model" * 100)
    with pytest.raises(ValueError, match=f"Cannot load .*{name}"):
        open_exported(tmp_path / name)
    with pytest.raises(ValueError, match=r"Expected a \.tflite, \.onnx or \.xml file, or the folder of a SavedModel"):
        open_exported(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        open_exported(tmp_path / "absent.onnx")


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
@pytest.mark.slow
def test_models_in_other_precisions_become_float32(dtype, tmp_path):
    """Before they are converted to any format."""
    model = small_model("performer", classes=7, dtype=dtype)
    exact = small_model("performer", classes=7)
    exact.set_weights([weight.astype("float32") for weight in model.get_weights()])
    keras_t2t.export(model, tmp_path / "model.tflite")
    images = difficult_images(31, 23, 3)
    received = open_exported(tmp_path / "model.tflite").run(images)
    np.testing.assert_allclose(received, outputs_of(exact, images), rtol=1e-3, atol=1e-6)


def test_nested_models_in_other_precisions_become_float32():
    model = small_model("performer", classes=7, dtype="mixed_float16")
    exact = small_model("performer", classes=7)
    images = keras.Input((31, 23, 3))
    nested = keras.Model(images, keras.Sequential([keras.Input((31, 23, 3)), model])(images))
    copy = exporter._in_float32(nested)
    assert {layer.dtype_policy.name for layer in layers_of(copy)} == {"float32"}
    pixels = difficult_images(31, 23, 3)
    np.testing.assert_array_equal(outputs_of(copy, pixels), outputs_of(exact, pixels))
    assert np.abs(outputs_of(nested, pixels) - outputs_of(exact, pixels)).max() > 1e-5


@pytest.mark.slow
def test_inputs_and_outputs_in_lists(tmp_path):
    small = small_model("performer", classes=7)
    for model in (keras.Model([small.input], [small.output]), keras.Model({"pixels": small.input}, small.output)):
        assert keras_t2t.export(model, tmp_path / "model.tflite", force=True).difference < 1e-4

    class SubclassedModel(keras.Model):
        def call(self, x):
            return small(x)

    with pytest.raises(ValueError, match=r"Expected a functional keras\.Model with one input and one output; received: <Sub"):
        keras_t2t.export(SubclassedModel(), tmp_path / "other.onnx")


@pytest.mark.slow
def test_force_replaces_exports_and_nothing_else(shipped, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"mine")
    for name in ("photos.tflite", "photos.bin"):
        shutil.copytree(tmp_path / "photos", tmp_path / name)
        path = (tmp_path / name).with_suffix(".tflite" if name.endswith("tflite") else ".xml")
        with pytest.raises(FileExistsError, match=f"{name} is not a SavedModel, so it will not be replaced"):
            keras_t2t.export(shipped, path, force=True)
        assert (tmp_path / name / "holiday.jpg").read_bytes() == b"mine"
        shutil.rmtree(tmp_path / name)
    with pytest.raises(FileExistsError, match="photos is not a SavedModel, so it will not be replaced"):
        keras_t2t.export(shipped, tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"mine"
    (tmp_path / "model").write_text("a file")
    keras_t2t.export(shipped, tmp_path / "model", force=True)
    (tmp_path / "model" / "old").write_text("old")
    with pytest.raises(keras_t2t.ExportError):
        keras_t2t.export(shipped, tmp_path / "model", force=True, tolerance=0)
    assert (tmp_path / "model" / "old").exists() and open_exported(tmp_path / "model").spec.labels
    keras_t2t.export(shipped, tmp_path / "model", force=True)
    assert not (tmp_path / "model" / "old").exists()
    assert sorted(os.listdir(tmp_path)) == ["model", "photos"]


@pytest.mark.slow
def test_fewer_calibration_images_than_a_batch(shipped, tmp_path):
    images = images_for(shipped)[:3]
    report = keras_t2t.export(
        shipped, tmp_path / "model.tflite", quantize="full_int8", batch_size=5, calibration=images, tolerance=0
    )
    assert report.images == 3


@pytest.mark.slow
def test_errors_of_converters_become_one_line(tmp_path):
    class Inverse(keras.layers.Layer):
        def call(self, x):
            return keras.ops.erfinv(x / 1000)

    backbone = small_model("performer", include_top=False, pooling="token")
    model = keras.Model(backbone.input, Inverse()(backbone.output))
    for format, path in FORMATS.items():
        if format != "saved_model":
            with pytest.raises(keras_t2t.ExportError, match=f"The model cannot be converted to {format}: .") as caught:
                keras_t2t.export(model, tmp_path / path)
            assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_single_class(tmp_path):
    assert keras_t2t.export(small_model("performer", classes=1), tmp_path / "model.tflite").difference == 0


@pytest.mark.parametrize("format", mostly_slow(FORMATS, "onnx"))
def test_spec_is_in_the_file(format, tmp_path):
    """Logits that happen to lie in [0, 1] are not taken for probabilities."""
    preprocessing = keras_t2t.Preprocessing(crop_fraction=0.7, interpolation="area", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 1))
    model = small_model(
        "performer", classes=3, classifier_activation=None, include_preprocessing=False, preprocessing=preprocessing
    )
    model = keras_t2t.replace_head(model, ["a", "b", "c"], None)
    keras_t2t.export(model, tmp_path / FORMATS[format])
    spec = open_exported(tmp_path / FORMATS[format]).spec
    assert spec.preprocessing == dataclasses.replace(preprocessing, image_size=(31, 23))
    assert (spec.normalizes, spec.output, spec.labels) == (False, "logits", ("a", "b", "c"))
    np.testing.assert_allclose(probabilities(np.log([[0.1, 0.3, 0.4]]) + 2.5, spec), [[0.125, 0.375, 0.5]])
    sigmoids = dataclasses.replace(spec, output="scores")
    np.testing.assert_array_equal(probabilities(np.array([[0.45, 0.39, 0.96]]), sigmoids), [[0.45, 0.39, 0.96]])


@pytest.mark.filterwarnings("error")
def test_probabilities_of_a_single_logit():
    spec = keras_t2t.preprocessing.ModelSpec(preprocessing=keras_t2t.Preprocessing(), normalizes=True, output="logits")
    received = probabilities(np.array([[0.0], [np.log(3)], [-np.log(3)], [-1000.0], [1000.0]]), spec)
    np.testing.assert_allclose(received, [[0.5], [0.75], [0.25], [0], [1]])


def test_error_for_a_file_without_metadata(shipped, exported, tmp_path):
    import onnx

    model = onnx.load(exported("onnx").path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    runtime = open_exported(tmp_path / "model.onnx")
    assert runtime.run(images_for(shipped)).shape == (10, 10)
    with pytest.raises(ValueError, match="Expected a file with keras_t2t metadata"):
        keras_t2t.predict_images(runtime, [assets.folder("images") / "frog.jpg"])


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (20.0, r"(10|20|30|40|50|60|70|80|90|0)\.0% of 10 images have the same top class or decision, less than"),
        (0.9, "its scores by .* of the largest one, more than the tolerance of 1.0e-01"),
    ],
)
@pytest.mark.slow
def test_decisions_of_a_single_score_are_compared(shift, message, activation, tmp_path, monkeypatch):
    """The top class of one class is always the same, so it says nothing."""
    model = small_model("performer", classes=1, classifier_activation=activation)
    bias = find_head(model).dense.bias
    logits = outputs_of(model, images_for(model))
    if activation == "sigmoid":
        logits = np.log(logits / (1 - logits))
    logits = np.sort(logits.ravel())
    widest = np.diff(logits).argmax()  # where the decision is clearest; or a threshold below all of them
    bias.assign(bias - (logits[widest : widest + 2].mean() if shift > 1 else logits[0] - 0.1))
    assert keras_t2t.export(model, tmp_path / "good.tflite", quantize="int8").agreement == 1.0

    def shifted(inference_model, path, *arguments):
        dense = find_head(inference_model).dense
        dense.bias.assign(dense.bias + shift)
        to_tflite(inference_model, path, *arguments)

    to_tflite = exporter.to_tflite
    monkeypatch.setattr(exporter, "to_tflite", shifted)
    for tolerance in (None, 0.9):
        with pytest.raises(keras_t2t.ExportError, match=message):
            keras_t2t.export(model, tmp_path / "bad.tflite", quantize="int8", tolerance=tolerance)


def agreement(outputs, expected, kind):
    """Returns the agreement in the report of a file that returns `outputs`."""
    spec = keras_t2t.preprocessing.ModelSpec(preprocessing=keras_t2t.Preprocessing(), normalizes=True, output=kind)
    runtime = Runtime(
        name="fake",
        run=lambda images: outputs[: len(images)],
        input_shape=(None, 2, 2, 3),
        input_dtype="float32",
        known_spec=spec,
    )
    images = np.zeros((len(expected), 2, 2, 3), "float32")
    return examine(runtime, images, expected, kind)["agreement"]


def test_agreement_of_decisions(monkeypatch):
    """A single logit is positive or not; log-probabilities, which are logits, have a top class."""
    monkeypatch.setattr("keras_t2t.exporting.report.measure_latency", lambda runtime, images: 0.0)
    expected = np.array([[-0.2], [0.3], [0.4], [-3.0]])
    assert agreement(expected + 0.25, expected, "logits") == 0.75
    assert agreement(-expected, expected, "logits") == 0
    expected = np.log([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    assert agreement(expected[:, ::-1], expected, "logits") == 0
    assert agreement(np.exp(expected[:, ::-1]), np.exp(expected), "scores") == 0.5


@pytest.mark.slow
def test_a_single_logit_is_a_probability_after_a_sigmoid(tmp_path):
    """As every way to predict says: Keras, the file, and the signature for encoded images."""
    import tensorflow as tf

    model = keras_t2t.replace_head(small_model("performer", classes=7), ["rose"], None)
    head = model.get_layer("head").kernel
    head.assign(np.linspace(-3, 4, head.shape[0])[:, None])  # with small random weights, all logits are nearly equal
    paths = sorted(assets.folder("images").glob("*.jpg"))[:3]
    logits = outputs_of(model, np.concatenate([keras_t2t.load_image(path, model) for path in paths]))
    expected = 1 / (1 + np.exp(-logits))
    assert np.ptp(expected) > 0.05
    keras_t2t.export(model, tmp_path / "model")
    for one in (model, open_exported(tmp_path / "model")):
        predictions = keras_t2t.predict_images(one, paths)
        assert [[label for label, _ in row] for row in predictions] == 3 * [["rose"]]
        np.testing.assert_allclose([[score for _, score in row] for row in predictions], expected, atol=1e-5)
    classify = tf.saved_model.load(str(tmp_path / "model")).signatures["classify"]
    answer = classify(encoded=tf.constant([path.read_bytes() for path in paths]))
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
    assert answer["labels"].numpy().tolist() == 3 * [[b"rose"]]


@pytest.mark.slow
def test_heads_of_your_own_are_exported_as_classifiers(tmp_path):
    backbone = small_model("performer", include_top=False, pooling="token")
    images = keras.Input((31, 23, 3))
    for model, kind in (
        (
            keras.Model(backbone.input, keras.layers.Dense(4, activation="softmax", name="mine")(backbone.output)),
            "probabilities",
        ),
        (keras.Model(images, keras.layers.Dense(4)(backbone(images))), "logits"),
    ):
        keras_t2t.export(model, tmp_path / "model", force=True)
        runtime = open_exported(tmp_path / "model")
        assert runtime.spec.output == kind
        paths = sorted(assets.folder("images").glob("*.jpg"))[:3]
        for expected, received in zip(*(keras_t2t.predict_images(one, paths, top=4) for one in (model, runtime)), strict=True):
            assert [label for label, _ in received] == [label for label, _ in expected]
        import tensorflow as tf

        assert "classify" in tf.saved_model.load(str(tmp_path / "model")).signatures
