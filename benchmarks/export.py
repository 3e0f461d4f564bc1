"""Speed and memory of T2TViT14 in each runtime, compared with naive exports, and accuracy after quantization.

    python -m benchmarks.export --folder exports                        speed in every runtime, about 25 minutes on 2 cores
    python -m benchmarks.export --folder exports --row tflite --batch 1
    python -m benchmarks.export --row tflite --against other.onnx       beside any other TFLite, ONNX or OpenVINO file
    python -m benchmarks.export --task memory                           peak memory of a batch of 32 in TensorFlow
    python -m benchmarks.export --task accuracy --data cifar10          the shipped checkpoint on CIFAR-10's test images

For speed and memory, weights and images are random. Every row runs in a fresh process, where a 2048 x 2048 matrix product in
NumPy and the model take turns; each timed call follows a pause and an untimed call. The fraction is the model's rate divided by
that of the matrix product (the median over all turns). It counts the operations of the authors' full forward pass, including
attention products, even for files of `--against`: a model that is twice as fast has twice the fraction. The column "of naive"
is that fraction divided by the fraction of the naive float32 row of the same runtime. Files of `--against` must take float32
images in any layout, in batches of any size or of the size that is measured; TFLite files may have any fixed batch size.

Naive exports do not use `optimize_for_inference` and have a fixed batch size: ONNX and OpenVINO as tf2onnx converts the model,
TFLite from the frozen graph. In the TFLite file, windows are cut by concatenated strided slices.

OpenVINO and oneDNN compute the bfloat16 rows in bfloat16 only on processors that have instructions for it.
"""

import argparse
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import matrix_rate, process_memory, run_child

NAIVE_ROWS = {
    "keras": "keras",
    "keras-xla": "keras-xla",
    "keras-bfloat16": "keras",
    "optimized": "keras",
    "optimized-xla": "keras-xla",
    "optimized-bfloat16": "keras",
    "saved_model": "keras",
    "saved_model-bfloat16": "keras",
    "onnx-naive": "onnx-naive",
    "onnx": "onnx-naive",
    "onnx-int8": "onnx-naive",
    "openvino-naive": "openvino-naive",
    "openvino": "openvino-naive",
    "openvino-float16": "openvino-naive",
    "openvino-bfloat16": "openvino-naive",
    "tflite-naive": "tflite-naive",
    "tflite": "tflite-naive",
    "tflite-float16": "tflite-naive",
    "tflite-int8": "tflite-naive",
    "tflite-full_int8": "tflite-naive",
}
"""The rows, each with the naive row of its runtime."""
FORMATS = (
    ("tflite", None),
    ("tflite", "float16"),
    ("tflite", "int8"),
    ("tflite", "full_int8"),
    ("onnx", None),
    ("onnx", "int8"),
    ("openvino", None),
    ("openvino", "float16"),
    ("openvino", "bfloat16"),
    ("saved_model", None),
    ("saved_model", "bfloat16"),
)
SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx", "openvino": ".xml", "saved_model": ""}


def random_model(dtype: str = "float32") -> Any:
    """Returns T2TViT14 with random weights, including biases and norms: zeros and ones would be folded away."""
    import keras
    import numpy as np

    import keras_t2t

    keras.utils.set_random_seed(0)
    model = keras_t2t.T2TViT14(weights=None, dtype=dtype)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "random_features" not in weight.path:
            weight.assign(weight.numpy() + rng.normal(0, 0.02, weight.shape))
    return model


def random_images(batch_size: int, shape: tuple[int, ...] = (224, 224, 3)) -> Any:
    """Returns random pixels `(B, *shape)`, float32."""
    import numpy as np

    return np.random.default_rng(0).uniform(0, 255, (batch_size, *shape)).astype("float32")


def is_exported(row: str) -> bool:
    """Returns whether a row runs an exported file rather than a Keras model."""
    return not row.startswith(("keras", "optimized"))


def export_path(folder: str | pathlib.Path, row: str, batch_size: int) -> pathlib.Path:
    """Returns the path of a row's export."""
    format_, _, kind = row.partition("-")
    size = f"-{batch_size}" if format_ == "tflite" or kind == "naive" else ""
    return pathlib.Path(folder) / f"{row}{size}{SUFFIXES[format_]}"


def write_export(row: str, batch_size: int, folder: str) -> float:
    """Exports the random model for a row, and returns the seconds this takes after the model was built."""
    import keras_t2t
    from keras_t2t import assets

    model, path = random_model(), export_path(folder, row, batch_size)
    start = time.perf_counter()
    if row.endswith("naive"):
        write_naive_export(model, batch_size, path)
        return time.perf_counter() - start
    format_, _, quantize = row.partition("-")
    keras_t2t.export(
        model,
        path,
        format_,
        quantize=quantize or None,
        batch_size=batch_size if format_ == "tflite" else 1,
        calibration=assets.folder("images") if quantize == "full_int8" else None,
        tolerance=0.0 if quantize.endswith("int8") else None,  # the top class of random weights is arbitrary
    )
    return time.perf_counter() - start


def write_naive_export(model: Any, batch_size: int, path: pathlib.Path) -> None:
    """Exports a model as it is; see the top of this file."""
    import onnx
    import openvino
    import tensorflow as tf
    import tf2onnx

    from keras_t2t.exporting.tflite import to_tflite
    from keras_t2t.layers import soft_split
    from keras_t2t.models import spec_of

    if path.suffix != ".tflite":
        signature = tf.TensorSpec((batch_size, 224, 224, 3), name="images")
        function = tf.function(lambda images: model(images, training=False), autograph=False)
        onnx.save(tf2onnx.convert.from_function(function, [signature], opset=18)[0], path.with_suffix(".onnx"))
        if path.suffix == ".xml":
            openvino.save_model(openvino.Core().read_model(path.with_suffix(".onnx")), path, compress_to_fp16=False)
    else:
        soft_split.extract_patches = strided_slices
        to_tflite(model, path, spec_of(model), batch_size=batch_size)


def strided_slices(x: Any, kernel_size: int, strides: int) -> Any:
    """Returns the same as `soft_split.extract_patches`."""
    import tensorflow as tf

    _, height, width, _ = x.shape
    rows, columns = height - kernel_size + 1, width - kernel_size + 1
    offsets = itertools.product(range(kernel_size), repeat=2)
    return tf.concat([x[:, i : i + rows : strides, j : j + columns : strides] for i, j in offsets], -1)


def keras_forward(row: str, batch_size: int) -> Callable[[], Any]:
    """Returns the compiled forward pass of a row that runs a Keras model."""
    import tensorflow as tf

    from keras_t2t import optimize_for_inference

    in_bfloat16 = row.endswith("bfloat16")
    if row.startswith("optimized"):
        model = optimize_for_inference(random_model(), "bfloat16" if in_bfloat16 else None)
    else:
        model = random_model("mixed_bfloat16" if in_bfloat16 else "float32")
    images = tf.constant(random_images(batch_size))
    function = tf.function(lambda: model(images, training=False), autograph=False, jit_compile=row.endswith("xla"))
    return lambda: function().numpy()


def speed(row: str, batch_size: int, folder: str, seconds: float) -> dict[str, float]:
    """Returns the figures of `matrix_rate` for a row, measured in this process, and the `"size"` of its export in bytes.

    Args:
        row: A row, or the path of another file.
        batch_size: Number of images in a batch.
        folder: Folder with the export of the row.
        seconds: Minimum time to spend.
    """
    import numpy as np

    import keras_t2t
    from keras_t2t.analysis import multiply_accumulates
    from keras_t2t.exporting.report import size_of

    if row not in NAIVE_ROWS or is_exported(row):
        path = export_path(folder, row, batch_size) if row in NAIVE_ROWS else row
        size, runtime = size_of(path), keras_t2t.open_exported(path)
        images = random_images(batch_size, runtime.input_shape[1:])

        def forward():
            return runtime.run(images)

    else:
        size, forward = 0, keras_forward(row, batch_size)
    if not np.isfinite(forward()).all():
        raise ValueError(f"Expected finite outputs; received others from row={row!r}")
    operations = 2 * batch_size * sum(multiply_accumulates(keras_t2t.VARIANTS["t2t_vit_14"].config).values())
    return {**matrix_rate(forward, operations, seconds, settle=True), "size": size}


def peak_memory(row: str, batch_size: int) -> tuple[int, int]:
    """Returns the peak memory in bytes, beyond what was used before, of the first run (which compiles) and of later runs."""
    forward = keras_forward(row, batch_size)
    before, peaks = process_memory("VmRSS"), []
    for _ in range(3):
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        forward()
        peaks.append(process_memory() - before)
    return peaks[0], max(peaks[1:])


def print_speed(rows: list[str], batch_sizes: list[int] | None, folder: pathlib.Path, seconds: float) -> None:
    """Prints the speed of each row, or other file, at each batch size. Files that are missing in `folder` are written first."""
    fractions = {}
    print(
        f"{'row':22}{'batch':>6}{'ms/image':>10}{'fraction of matmul rate':>25}{'matmul GFLOP/s':>16}{'of naive':>10}{'MB':>8}"
    )
    for batch_size, row in itertools.product(batch_sizes or (1, 8), rows):
        if row in NAIVE_ROWS and is_exported(row) and not export_path(folder, row, batch_size).exists():
            run_child(write_export, row, batch_size, str(folder))
        figures = run_child(speed, row, batch_size, str(folder), seconds)
        fraction, size = figures["fraction"], figures["size"]
        fractions[row, batch_size] = fraction
        naive = fractions.get((NAIVE_ROWS.get(row), batch_size))
        speedup = format(fraction / naive, ".2f") if naive else ""
        print(
            f"{pathlib.Path(row).name:22}{batch_size:6}{1e3 * figures['seconds'] / batch_size:10.1f}{fraction:25.2f}"
            f"{figures['gflops']:16.0f}{speedup:>10}{format(size / 1e6, '.1f') if size else '':>8}",
            flush=True,
        )


def print_memory(batch_size: int) -> None:
    """Prints the peak memory of the Keras model and of the optimized model."""
    print(f"{'batch of ' + str(batch_size):18}{'Keras, MiB':>12}{'optimized, MiB':>16}{'ratio':>8}")
    for mode, suffix in (("graph", ""), ("XLA", "-xla")):
        peaks = zip(*(run_child(peak_memory, row + suffix, batch_size) for row in ("keras", "optimized")), strict=True)
        for run, (original, optimized) in zip(("first", "later"), peaks, strict=True):
            label = f"{mode}, {run} run"
            print(f"{label:18}{original / 2**20:12.0f}{optimized / 2**20:16.0f}{optimized / original:8.2f}", flush=True)


def print_accuracy(data: str, folder: pathlib.Path) -> None:
    """Prints the accuracy of the shipped checkpoint on CIFAR-10's test images in each format."""
    import numpy as np

    import keras_t2t

    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    source = keras_t2t.data.from_folder(data)["test"]
    batches = keras_t2t.data.evaluation_batches(source, keras_t2t.preprocessing_of(model), 100)
    images = np.concatenate([images for images, _ in batches])
    expected = model.predict(images, batch_size=100, verbose=0).argmax(-1)
    keras_top1 = (expected == source.labels).mean()
    print(f"{len(images)} images; the Keras model: top-1 {keras_top1:.2%}\n")
    print(f"{'':22}{'MB':>8}{'top-1 %':>10}{'loss, points':>14}{'agreement %':>13}")
    for format_, quantize in FORMATS:
        report = keras_t2t.export(
            model,
            folder / f"tiny-{quantize}{SUFFIXES[format_]}",
            quantize=quantize,
            calibration=pathlib.Path(data) / "train" if quantize == "full_int8" else None,
            tolerance=0.0 if quantize in ("int8", "full_int8") else None,
            force=True,
        )
        runtime = keras_t2t.open_exported(report.path)
        predicted = np.concatenate([runtime.run(part).argmax(-1) for part in np.split(images, 100)])
        top1 = (predicted == source.labels).mean()
        print(
            f"{format_ + ' ' + (quantize or 'float32'):22}{report.size / 1e6:8.2f}{100 * top1:10.2f}"
            f"{100 * (keras_top1 - top1):14.2f}{100 * (predicted == expected).mean():13.2f}",
            flush=True,
        )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("speed", "memory", "accuracy"), default="speed")
    parser.add_argument("--row", choices=NAIVE_ROWS, nargs="*", default=list(NAIVE_ROWS), help="rows for speed; by default all")
    parser.add_argument("--against", metavar="FILE", nargs="*", default=[], help="other files to measure the speed of")
    parser.add_argument("--batch", type=int, nargs="*", help="batch sizes; by default 1 and 8, for memory 32")
    parser.add_argument("--seconds", type=float, default=10, help="for each row of speed")
    parser.add_argument("--folder", type=pathlib.Path, help="folder that keeps exported files and provides existing ones")
    parser.add_argument("--data", help="for accuracy: a folder with train and test of CIFAR-10")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        if arguments.task == "accuracy":
            print_accuracy(arguments.data, folder)
        elif arguments.task == "memory":
            print_memory((arguments.batch or [32])[0])
        else:
            print_speed(arguments.row + arguments.against, arguments.batch, folder, arguments.seconds)


if __name__ == "__main__":
    main()
