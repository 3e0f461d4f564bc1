"""Benchmarks of models in separate processes."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import keras_t2t
from keras_t2t.exporting import benchmark, measure_child
from keras_t2t.figures import PALETTE
from tests.conftest import SMALL_CONFIGS


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Returns a function that writes a small model to a file with a given name, once, and returns its path."""
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), input_shape=(31, 23, 3), classes=5)
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def write_once(name):
        model.save(folder / name) if name.endswith(".keras") else keras_t2t.export(model, folder / name)
        return folder / name

    return write_once


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("small.tflite", "LiteRT"),
        ("small.onnx", "ONNX Runtime"),
        ("small.xml", "OpenVINO"),
        ("saved", "TensorFlow"),
        ("small.keras", "TensorFlow"),
    ],
)
@pytest.mark.slow
def test_measure(write, name, runtime):
    path = write(name)
    measured = benchmark.measure(path, batches=(3, 5), seconds=0.01, threads=1)
    assert (measured.path, measured.runtime, list(measured.throughput)) == (path, runtime, [3, 5])
    pattern = {"saved": "saved/**/*", "small.xml": "small.[xb]*"}.get(name, name)
    written = [file for file in path.parent.glob(pattern) if file.is_file()]
    assert measured.size == sum(len(file.read_bytes()) for file in written) > 0
    assert 0 < measured.latency < 10
    # TensorFlow alone takes more memory than another runtime together with this model.
    assert (measured.memory > 300 * 2**20) == (runtime == "TensorFlow")


def test_memory_where_there_is_no_proc(monkeypatch, tmp_path):
    """On macOS, the memory comes from the system call that Linux has as well, where it counts in KiB."""
    on_linux = measure_child._peak_memory()
    monkeypatch.setattr(measure_child, "STATUS", tmp_path / "absent")
    assert 1024 * measure_child._peak_memory() == pytest.approx(on_linux, rel=0.01)


@pytest.mark.parametrize("name", ["small.tflite", "small.onnx", "small.xml"])
@pytest.mark.slow
def test_memory_does_not_include_tensorflow(write, name):
    """The process imports nothing but numpy and the runtime."""
    program = f"{benchmark.START}; import json; print(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", program, benchmark.PROGRAM, write(name), 1, 0.0, 2]
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    measurement, modules = output.splitlines()
    assert json.loads(measurement)["memory"] > 0
    imported = {module.split(".")[0] for module in json.loads(modules)}
    assert "numpy" in imported
    assert imported.isdisjoint({"tensorflow", "keras"})


def test_latency_and_throughput(tmp_path):
    """With a fake runtime that takes 20 ms per call plus 10 ms per image."""
    for folder in ("", "exporting"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "timing.py").write_bytes((benchmark.PROGRAM.parents[1] / "timing.py").read_bytes())
    (tmp_path / "export_formats.py").write_text("EXTENSIONS = {'.onnx': 'onnx'}\n")
    (tmp_path / "exporting" / "runtimes.py").write_text(
        "import time\n"
        "class Slow:\n"
        "    name, input_shape, input_dtype = 'slow', (None, 3, 4, 3), 'uint8'\n"
        "    def run(self, images):\n"
        "        assert images.dtype == 'uint8' and images.shape[1:] == (3, 4, 3)\n"
        "        time.sleep(0.02 + 0.01 * len(images))\n"
        "def open_exported(path, threads):\n"
        "    return Slow()\n"
    )
    program = tmp_path / "exporting" / "measure_child.py"
    program.write_bytes(benchmark.PROGRAM.read_bytes())
    command = [sys.executable, "-c", benchmark.START, str(program), "model.onnx", "1", "0.5", "8"]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.03 <= measured["latency"] < 0.1
    assert 8 / 0.2 < measured["throughput"][0] <= 8 / 0.1


def test_invalid_arguments_and_files(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder .*absent\.onnx"):
        benchmark.measure(tmp_path / "absent.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"not a model" * 100)
    with pytest.raises(ValueError, match=r"Cannot load .*damaged\.onnx: "):
        benchmark.measure(tmp_path / "damaged.onnx")
    with pytest.raises(ValueError, match=r"Expected positive batch sizes; received: batches=\(0,\)"):
        benchmark.measure(write("small.onnx"), batches=(0,))


def test_the_error_says_why_a_process_died(write, monkeypatch):
    monkeypatch.setattr(benchmark, "START", "import sys; sys.exit('killed')")
    with pytest.raises(RuntimeError, match=r"The process that measured .*small\.onnx died: killed"):
        benchmark.measure(write("small.onnx"))


def test_chart_has_a_color_for_each_runtime(tmp_path):
    first = benchmark.Measurement(tmp_path / "a.tflite", "LiteRT", 10_000_000, 0.02, {8: 50.0}, 2**28)
    second = benchmark.Measurement(tmp_path / "b.onnx", "ONNX Runtime", 40_000_000, 0.04, {8: 25.0}, 2**29)
    benchmark.draw([first, second], tmp_path / "bars.png")
    pixels = np.asarray(Image.open(tmp_path / "bars.png").convert("RGB")).reshape(-1, 3)
    colors = [np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) for code in PALETTE[:4]]
    areas = [(pixels == color).all(-1).sum() for color in colors]
    assert areas[0] > 1000 and areas[1] > 1000 and areas[2] == areas[3] == 0
    # The first has 1/2, 1/2 and 1/4 of the latency, memory and size of the second, and twice its throughput.
    assert areas[0] / areas[1] == pytest.approx((0.5 + 0.5 + 0.25 + 1) / (1 + 1 + 1 + 0.5), rel=0.1)
