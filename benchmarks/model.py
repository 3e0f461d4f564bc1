"""Speed and memory of inference with T2TViT14 on a CPU, relative to the machine's own rate of float32 matrix products.

    python -m benchmarks.model                                      every setting, about 7 minutes on 2 cores
    python -m benchmarks.model --onednn 1 --mode graph --batch 8

Every setting runs in a fresh process, where a 2048 x 2048 matrix product in NumPy and the model take turns. The fraction is the
model's rate divided by that of the matrix product (the median over all turns). It counts the operations of the authors' full
forward pass, including attention products. Memory is the peak of the whole process. For training, see `benchmarks.training`.
"""

import argparse
import itertools

from benchmarks.harness import matrix_rate, process_memory, run_child

BATCHES = (1, 8, 32)
MODES = ("graph", "xla")


def measure(mode: str, batch: int, seconds: float) -> dict[str, float]:
    """Measures one setting in this process.

    Returns:
        The figures of `matrix_rate`, `"images_per_second"`, and `"peak_mib"` of memory.
    """
    import numpy as np
    import tensorflow as tf

    import keras_t2t
    from keras_t2t.analysis import multiply_accumulates

    model = keras_t2t.T2TViT14(weights=None, include_preprocessing=False)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((batch, 224, 224, 3)), "float32")
    operations = 2 * batch * sum(multiply_accumulates(keras_t2t.config_of(model)).values())
    # XLA would fold zeros and ones away.
    model.set_weights([value + rng.uniform(1e-3, 1e-2, value.shape) for value in model.get_weights()])
    forward = tf.function(lambda: model(images, training=False), jit_compile=mode == "xla")
    figures = matrix_rate(lambda: forward().numpy(), operations, seconds)
    return {**figures, "images_per_second": batch / figures["seconds"], "peak_mib": process_memory() / 2**20}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onednn", choices=("0", "1"), nargs="*", default=("0", "1"), help="TF_ENABLE_ONEDNN_OPTS")
    parser.add_argument("--mode", choices=MODES, nargs="*", default=MODES)
    parser.add_argument("--batch", type=int, nargs="*", default=BATCHES, help="batch sizes")
    parser.add_argument("--seconds", type=float, default=15, help="for each setting")
    arguments = parser.parse_args()
    print(
        f"{'batch':6}{'mode':7}{'oneDNN':8}{'images/s':>9}{'fraction of matmul rate':>25}{'matmul GFLOP/s':>16}{'peak MiB':>10}"
    )
    for batch, mode, onednn in itertools.product(arguments.batch, arguments.mode, arguments.onednn):
        figures = run_child(measure, mode, batch, arguments.seconds, environment={"TF_ENABLE_ONEDNN_OPTS": onednn})
        print(
            f"{batch:<6}{mode:7}{'on' if onednn == '1' else 'off':8}{figures['images_per_second']:9.2f}"
            f"{figures['fraction']:25.2f}{figures['gflops']:16.0f}{figures['peak_mib']:10.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
