"""Speed and memory of a training step on a CPU, relative to the machine's own rate of float32 matrix products.

    python -m benchmarks.training                                        every setting, about 15 minutes on 2 cores
    python -m benchmarks.training --model t2t_vit_tiny_32 --mode graph --dtype float32

The models are T2TViT14 at 224x224 in batches of 16, and T2TViTTiny32 at 32x32 in batches of 128, both with AdamW. Every setting
runs in a fresh process, where a 2048 x 2048 matrix product in NumPy and the training step take turns. The fraction is the rate
of the step divided by that of the matrix product (the median over all turns). It counts three times the operations of the
authors' full forward pass, including attention products. Memory is the peak of the whole process.

The rows differ in the layers: "Keras" uses `tf.image.extract_patches` and the dense and normalization layers of Keras,
"automatic" those of this package without their own gradients of GELU and LayerNorm, "keras_t2t" the package as it is, and
"rematerialized" the recipe setting `rematerialize`, too.
"""

import argparse
import contextlib
import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

from benchmarks.harness import matrix_rate, process_memory, run_child

BATCHES = {"t2t_vit_14": 16, "t2t_vit_tiny_32": 128}
ROWS = ("Keras", "automatic", "keras_t2t", "rematerialized")
MODES = ("graph", "xla")
DTYPES = ("float32", "mixed_bfloat16")


def layers_of_row(row: str) -> contextlib.ExitStack:
    """Returns a context in which models are built and called with the layers of a row."""
    from benchmarks.layers import replaced
    from keras_t2t.layers import FastDense, FastLayerNorm, SoftSplit, fast_dense, fast_layer_norm

    stack = contextlib.ExitStack()
    if row == "Keras":
        stack.enter_context(replaced(SoftSplit, FastDense, FastLayerNorm))
    elif row == "automatic":
        stack.enter_context(mock.patch.object(fast_dense, "gelu", lambda x, training: fast_dense.exact_gelu(x)))
        plain = fast_layer_norm.layer_norm
        stack.enter_context(mock.patch.object(fast_layer_norm, "layer_norm_with_lean_gradient", plain))
    return stack


def training_step(name: str, **settings: Any) -> Callable[[], Any]:
    """Returns a function that trains a model on one batch, with these settings of the recipe."""
    import numpy as np
    import tensorflow as tf

    from keras_t2t.training import load_recipe
    from keras_t2t.training.building import compiled_model

    batch = BATCHES[name]
    recipe = load_recipe("imagenet", model=name).replace(batch_size=batch, **settings)
    model = compiled_model(recipe, [str(index) for index in range(1000)], steps=100)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, (batch, recipe.image_size, recipe.image_size, 3)), "float32")
    targets = tf.one_hot(rng.integers(0, 1000, batch), 1000)
    return lambda: model.train_on_batch(images, targets)


def measure(name: str, row: str, mode: str, dtype: str, seconds: float) -> dict[str, float]:
    """Measures one setting in this process.

    Returns:
        The figures of `matrix_rate`, `"images_per_second"`, and `"peak_mib"` of memory.
    """
    import keras_t2t
    from keras_t2t.analysis import multiply_accumulates

    batch, variant = BATCHES[name], keras_t2t.VARIANTS[name]
    operations = 3 * 2 * batch * sum(multiply_accumulates(variant.config, (variant.image_size,) * 2).values())
    with layers_of_row(row):
        step = training_step(name, dtype=dtype, jit_compile=mode == "xla", rematerialize=row == "rematerialized")
        figures = matrix_rate(step, operations, seconds)
    return {**figures, "images_per_second": batch / figures["seconds"], "peak_mib": process_memory() / 2**20}


def main() -> None:
    """Runs the command line."""
    parser: Any = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=BATCHES, nargs="*", default=list(BATCHES))
    parser.add_argument("--row", choices=ROWS, nargs="*", default=ROWS)
    parser.add_argument("--mode", choices=MODES, nargs="*", default=MODES)
    parser.add_argument("--dtype", choices=DTYPES, nargs="*", default=DTYPES)
    parser.add_argument("--seconds", type=float, default=15, help="for each setting")
    arguments = parser.parse_args()
    columns = f"{'model':16}{'dtype':15}{'mode':6}{'row':15}"
    print(f"{columns}{'images/s':>9}{'fraction of matmul rate':>24}{'GFLOP/s':>8}{'peak MiB':>9}")
    for name, dtype, mode, row in itertools.product(arguments.model, arguments.dtype, arguments.mode, arguments.row):
        figures = run_child(measure, name, row, mode, dtype, arguments.seconds)
        print(
            f"{name:16}{dtype:15}{mode:6}{row:15}{figures['images_per_second']:9.1f}"
            f"{figures['fraction']:24.2f}{figures['gflops']:8.0f}{figures['peak_mib']:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
