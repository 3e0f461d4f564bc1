"""Speed and memory of T2TViT14 on this machine's CPU, beside its own rate of multiplying float32 matrices.

    python benchmarks/model.py                                      every setting, about 10 minutes on 2 cores
    python benchmarks/model.py --onednn 1 --mode graph --task inference-8

Every setting runs in a process of its own. In it, a 2048 x 2048 matrix product of numpy and the model take turns; the fraction
is the median over the turns of the model's rate over the matrices' rate, counting the multiplications of the authors' full
forward pass (attention products included; three times that for a training step). Memory is the peak of the whole process.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

TASKS = ("inference-1", "inference-8", "inference-32", "training-16")
MODES = ("graph", "xla")
MATRIX = 2048


def measure(mode, task, seconds):
    """Returns the figures of one setting, measured in this process."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_t2t
    from keras_t2t.analysis import multiply_accumulates

    kind, batch = task.split("-")
    batch = int(batch)
    model = keras_t2t.T2TViT14(weights=None, include_preprocessing=False)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((batch, 224, 224, 3)), "float32")
    labels = tf.constant(rng.integers(0, 1000, batch))
    macs = batch * sum(multiply_accumulates(keras_t2t.config_of(model)).values())
    if kind == "inference":
        # Zeros and ones would be folded away.
        model.set_weights([value + rng.uniform(1e-3, 1e-2, value.shape) for value in model.get_weights()])
        function = tf.function(lambda: model(images, training=False), jit_compile=mode == "xla")
    else:
        model.compile(keras.optimizers.AdamW(1e-4), "sparse_categorical_crossentropy", jit_compile=mode == "xla")
        macs *= 3

        def function():
            return model.train_on_batch(images, labels)

    matrix = rng.standard_normal((MATRIX, MATRIX)).astype("float32")
    fractions, rates, times = [], [], []
    for _ in range(2):
        timed(function), timed(lambda: matrix @ matrix)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        rates.append(2 * MATRIX**3 / timed(lambda: matrix @ matrix) / 1e9)
        times.append(timed(function))
        fractions.append(2 * macs / times[-1] / 1e9 / rates[-1])
    return {
        "images_per_second": batch / statistics.median(times),
        "matrix_gflops": statistics.median(rates),
        "fraction": statistics.median(fractions),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def timed(function):
    start = time.perf_counter()
    result = function()
    if hasattr(result, "numpy"):
        result.numpy()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onednn", choices=("0", "1"), nargs="*", default=("0", "1"), help="TF_ENABLE_ONEDNN_OPTS")
    parser.add_argument("--mode", choices=MODES, nargs="*", default=MODES)
    parser.add_argument("--task", choices=TASKS, nargs="*", default=TASKS, help="and the batch size")
    parser.add_argument("--seconds", type=float, default=15, help="for each setting")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.mode[0], arguments.task[0], arguments.seconds)))
        return
    print(
        f"{'task':14}{'mode':7}{'oneDNN':8}{'images/s':>9}{'fraction of matmul rate':>25}{'matmul GFLOP/s':>16}{'peak MiB':>10}"
    )
    for task, mode, onednn in itertools.product(arguments.task, arguments.mode, arguments.onednn):
        command = [sys.executable, __file__, "--child", "--mode", mode, "--task", task, "--seconds", str(arguments.seconds)]
        environment = {
            **os.environ,
            "TF_ENABLE_ONEDNN_OPTS": onednn,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
        }
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        r = json.loads(output.splitlines()[-1])
        print(
            f"{task:14}{mode:7}{'on' if onednn == '1' else 'off':8}{r['images_per_second']:9.2f}{r['fraction']:25.2f}"
            f"{r['matrix_gflops']:16.0f}{r['peak_mib']:10.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
