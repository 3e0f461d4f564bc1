"""What export is worth: speed and memory of T2TViT14 beside its naive exports, and accuracy in fewer bits.

    python benchmarks/export.py --folder exports                        speed in every runtime, about 15 minutes on 2 cores
    python benchmarks/export.py --folder exports --row tflite --batch 1
    python benchmarks/export.py --task memory                           peak memory of a batch of 32 in TensorFlow
    python benchmarks/export.py --task accuracy --data cifar10          the shipped checkpoint on CIFAR-10's test images

Weights are random, and so are images. Every row has a process of its own, since the threads of one runtime go on spinning for
a while and slow the next; for the same reason there is a pause, and a run that does not count, before each one that is timed.
In it, a 2048 x 2048 matrix product of numpy and the model take turns; the fraction is the median over the turns of the model's
rate over the matrices' rate, counting the multiplications of the authors' full forward pass (attention products included).
"Of naive" is the row's fraction over that of the naive row of the same runtime.

Naive exports are the model without `optimize_for_inference`, each for one size of batch: ONNX as tf2onnx makes it, TFLite from
the frozen graph. Two things had to be replaced to make them run at all: GELU, which becomes `Erfc`, by the same with `Erf`; in
TFLite, `extract_patches` by strided slices, put together.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

NAIVE = {  # the naive row of each row
    "keras": "keras",
    "keras-xla": "keras-xla",
    "optimized": "keras",
    "optimized-xla": "keras-xla",
    "saved_model": "keras",
    "onnx-naive": "onnx-naive",
    "onnx": "onnx-naive",
    "tflite-naive": "tflite-naive",
    "tflite": "tflite-naive",
    "tflite-float16": "tflite-naive",
    "tflite-int8": "tflite-naive",
    "tflite-full_int8": "tflite-naive",
}
FORMATS = (
    ("tflite", None),
    ("tflite", "float16"),
    ("tflite", "int8"),
    ("tflite", "full_int8"),
    ("onnx", None),
    ("onnx", "int8"),
)
MATRIX = 2048


def random_model():
    """Returns T2TViT14 with random weights, biases and norms included: zeros and ones would be folded away."""
    import keras
    import numpy as np

    import keras_t2t

    keras.utils.set_random_seed(0)
    model = keras_t2t.T2TViT14(weights=None)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "random_features" not in weight.path:
            weight.assign(weight.numpy() + rng.normal(0, 0.02, weight.shape))
    return model


def file_of(folder, row, batch):
    """Returns where the export of a row is."""
    ending = {"saved_model": "", "onnx": ".onnx", "onnx-naive": f"-{batch}.onnx"}.get(row, f"-{batch}.tflite")
    return folder / f"{row}{ending}"


def write_file(row, batch, path):
    """Exports the random model for a row."""
    import keras_t2t
    from keras_t2t.exporting.samples import sample_folder

    model = random_model()
    if row.endswith("naive"):
        write_naive(model, batch, path)
        return
    format_, _, quantize = row.partition("-")
    keras_t2t.export(
        model,
        path,
        format_,
        quantize=quantize or None,
        batch_size=batch if format_ == "tflite" else 1,
        calibration=sample_folder() if quantize == "full_int8" else None,
        tolerance=0.0 if quantize.endswith("int8") else None,  # random weights have no likeliest class
    )


def write_naive(model, batch, path):
    """Exports a model as it is; the head of this file says what had to be replaced."""
    import keras
    import onnx
    import tensorflow as tf
    import tf2onnx

    from keras_t2t.exporting.tflite import to_tflite
    from keras_t2t.inference.folded import exact_gelu
    from keras_t2t.layers import soft_split

    for layer in model._flatten_layers():
        if getattr(layer, "activation", None) is keras.activations.gelu:
            layer.activation = exact_gelu
    if path.suffix == ".onnx":
        spec = tf.TensorSpec((batch, 224, 224, 3), name="images")
        function = tf.function(lambda images: model(images, training=False), autograph=False)
        onnx.save(tf2onnx.convert.from_function(function, [spec], opset=18)[0], path)
    else:
        soft_split.extract_patches = strided_slices
        to_tflite(model, path, batch_size=batch)


def strided_slices(x, kernel_size, strides):
    """Returns what `soft_split.extract_patches` does."""
    import tensorflow as tf

    _, height, width, _ = x.shape
    rows, columns = height - kernel_size + 1, width - kernel_size + 1
    offsets = itertools.product(range(kernel_size), repeat=2)
    return tf.concat([x[:, i : i + rows : strides, j : j + columns : strides] for i, j in offsets], -1)


def graph_of(row, images):
    """Returns a function without arguments that runs the Keras model of a row on images (B, H, W, C)."""
    import tensorflow as tf

    from keras_t2t import optimize_for_inference

    model = random_model()
    if row.startswith("optimized"):
        model = optimize_for_inference(model)
    images = tf.constant(images)
    function = tf.function(lambda: model(images, training=False), autograph=False, jit_compile=row.endswith("xla"))
    return lambda: function().numpy()


def speed(row, batch, folder, seconds):
    """Returns the figures of a row, measured in this process."""
    import numpy as np

    from keras_t2t.analysis import multiply_accumulates
    from keras_t2t.configs import VARIANTS
    from keras_t2t.exporting import open_exported

    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (batch, 224, 224, 3)).astype("float32")
    if row.startswith(("keras", "optimized")):
        run = graph_of(row, images)
    else:
        runtime = open_exported(file_of(folder, row, batch))

        def run():
            return runtime.run(images)

    if not np.isfinite(run()).all():
        raise ValueError(f"{row} gives values that are not finite")
    matrix = rng.standard_normal((MATRIX, MATRIX)).astype("float32")
    operations = 2 * batch * sum(multiply_accumulates(VARIANTS["t2t_vit_14"].config).values())
    fractions, rates, times = [], [], []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        rates.append(2 * MATRIX**3 / timed(lambda: matrix @ matrix))
        times.append(timed(run))
        fractions.append(operations / times[-1] / rates[-1])
    return {
        "milliseconds": 1e3 * statistics.median(times) / batch,
        "fraction": statistics.median(fractions),
        "gflops": statistics.median(rates) / 1e9,
    }


def timed(run):
    """Returns the seconds of a run, after a pause in which other threads fall asleep, and a run that wakes its own."""
    time.sleep(0.05)
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory(row, batch):
    """Returns bytes above those of the process before: at most in the first run, which compiles, and at most in later ones."""
    import numpy as np

    run = graph_of(row, np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype("float32"))
    before, peaks = status("VmRSS"), []
    for _ in range(3):
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        run()
        peaks.append(status("VmHWM") - before)
    return peaks[0], max(peaks[1:])


def status(field):
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])


def accuracy(data, folder):
    """Prints what the shipped checkpoint is worth on CIFAR-10's test images in each format."""
    import numpy as np

    import keras_t2t

    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    source = keras_t2t.data.from_folder(data)["test"]
    batches = keras_t2t.data.evaluation_batches(source, (32, 32), 100, crop=1.0)
    images = np.concatenate([images for images, _ in batches])
    expected = model.predict(images, batch_size=100, verbose=0).argmax(-1)
    whole = (expected == source.labels).mean()
    print(f"{len(images)} images; the Keras model: top-1 {whole:.2%}\n")
    print(f"{'':20}{'MB':>8}{'top-1 %':>10}{'loss, points':>14}{'agreement %':>13}")
    for format_, quantize in FORMATS:
        report = keras_t2t.export(
            model,
            folder / f"tiny-{quantize}.{format_}",
            quantize=quantize,
            calibration=pathlib.Path(data) / "train" if quantize == "full_int8" else None,
            tolerance=0.0 if quantize in ("int8", "full_int8") else None,
            force=True,
        )
        runtime = keras_t2t.exporting.open_exported(report.path)
        found = np.concatenate([runtime.run(part).argmax(-1) for part in np.split(images, 100)])
        top1 = (found == source.labels).mean()
        print(
            f"{format_ + ' ' + (quantize or 'float32'):20}{report.size / 1e6:8.2f}{100 * top1:10.2f}"
            f"{100 * (whole - top1):14.2f}{100 * (found == expected).mean():13.2f}",
            flush=True,
        )


def in_child(task, row, batch, folder, seconds):
    """Returns what a task prints about a row, from a process of its own."""
    command = [sys.executable, __file__, "--child", "--task", task, "--row", row, "--batch", batch]
    command += ["--folder", folder, "--seconds", seconds]
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    child = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if child.returncode:
        sys.exit(f"{row}: {child.stderr[-3000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def print_speed(arguments, folder):
    naive = {}
    print(
        f"{'row':18}{'batch':>6}{'ms/image':>10}{'fraction of matmul rate':>25}{'matmul GFLOP/s':>16}{'of naive':>10}{'MB':>8}"
    )
    for batch, row in itertools.product(arguments.batch or (1, 8), arguments.row or NAIVE):
        file = file_of(folder, row, batch)
        is_file = not row.startswith(("keras", "optimized"))
        if is_file and not file.exists():
            in_child("write", row, batch, folder, 0)
        r = in_child("speed", row, batch, folder, arguments.seconds)
        naive[row, batch] = r["fraction"]
        base = naive.get((NAIVE[row], batch))
        size = sum(part.stat().st_size for part in (file, *file.rglob("*")) if part.is_file()) / 1e6
        print(
            f"{row:18}{batch:6}{r['milliseconds']:10.1f}{r['fraction']:25.2f}{r['gflops']:16.0f}"
            f"{format(r['fraction'] / base, '.2f') if base else '':>10}{format(size, '.1f') if is_file else '':>8}",
            flush=True,
        )


def print_memory(arguments, folder):
    batch = (arguments.batch or [32])[0]
    print(f"{'batch of ' + str(batch):18}{'Keras, MiB':>12}{'optimized, MiB':>16}{'ratio':>8}")
    for mode in ("", "-xla"):
        peaks = zip(*(in_child("memory", row + mode, batch, folder, 0) for row in ("keras", "optimized")), strict=True)
        for run, (whole, optimized) in zip(("first", "later"), peaks, strict=True):
            label = f"{'XLA' if mode else 'graph'}, {run} run"
            print(f"{label:18}{whole / 2**20:12.0f}{optimized / 2**20:16.0f}{optimized / whole:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("speed", "memory", "accuracy", "write"), default="speed")
    parser.add_argument("--row", choices=NAIVE, nargs="*", help="rows of speed; by default all")
    parser.add_argument("--batch", type=int, nargs="*", help="by default 1 and 8; for memory 32")
    parser.add_argument("--seconds", type=float, default=10, help="for each row of speed")
    parser.add_argument("--folder", type=pathlib.Path, help="where exported files stay; what is there already is used")
    parser.add_argument("--data", help="for accuracy: a folder with CIFAR-10's train and test")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        (row,), (batch,), folder = arguments.row, arguments.batch, arguments.folder
        if arguments.task == "write":
            found = write_file(row, batch, file_of(folder, row, batch))
        elif arguments.task == "memory":
            found = memory(row, batch)
        else:
            found = speed(row, batch, folder, arguments.seconds)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True, parents=True)
        if arguments.task == "accuracy":
            accuracy(arguments.data, folder)
        else:
            {"speed": print_speed, "memory": print_memory}[arguments.task](arguments, folder)


if __name__ == "__main__":
    main()
