"""The cost of analyzing a model: peak memory, and how the time for one image grows with its size.

    python -m benchmarks.analysis memory                       each analysis of T2TViT14
    python -m benchmarks.analysis growth --picture growth.png  T2TViT14 and T2TViTt14, one image of 112 to 1024 pixels

Every measurement runs in a fresh process. Memory is the peak of the whole process, including TensorFlow; the row "model alone"
is a prediction without any analysis. The transformer is not run above 448 pixels: at 640, its first attention matrix takes 2.6
GB.
"""

import argparse
from collections.abc import Sequence

from benchmarks.harness import process_memory, run_child

LARGEST = {"performer": 1024, "transformer": 448}
MODEL_ALONE = "model alone"
ANALYSES = (MODEL_ALONE, "attention_maps", "attention_rollout", "class_evidence", "redundancy", "feature_maps")
VARIANTS = {"performer": "t2t_vit_14", "transformer": "t2t_vit_t_14"}


def peak_memory(analysis: str, size: int, variant: str) -> int:
    """Analyzes one image, and returns the peak memory of the process in bytes."""
    import numpy as np

    import keras_t2t

    model = keras_t2t.T2TViT(variant, input_shape=(size, size, 3))
    images = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3))
    if analysis == MODEL_ALONE:
        model.predict_on_batch(images)
    else:
        getattr(keras_t2t.analysis, analysis)(model, images)
    return process_memory()


def seconds_per_image(variant: str, size: int) -> float:
    """Returns the median time for one image."""
    import keras_t2t

    return keras_t2t.analysis.latency(keras_t2t.T2TViT(variant, input_shape=(size, size, 3)))


def print_memory(sizes: Sequence[int], variant: str) -> None:
    """Prints the peak memory of each analysis at each image size."""
    print(f"{'peak of the process, MiB':24}" + "".join(f"{f'{size}x{size}':>12}" for size in sizes))
    for analysis in ANALYSES:
        peaks = (run_child(peak_memory, analysis, size, variant) / 2**20 for size in sizes)
        print(f"{analysis:24}" + "".join(f"{peak:12.0f}" for peak in peaks), flush=True)


def print_growth(picture: str | None) -> None:
    """Prints operations, memory and time at each image size, and draws them if `picture` is a path."""
    import keras_t2t
    from keras_t2t.analysis import draw_growth, growth
    from keras_t2t.cli.analysis import SIZES

    counts = growth(keras_t2t.VARIANTS["t2t_vit_14"].config, SIZES)
    times: dict[str, dict[int, float]] = {kind: {} for kind in VARIANTS}
    print(f"{'token attention':18}{'pixels':>8}{'G MACs':>10}{'largest, MiB':>14}{'seconds':>10}{'G MACs/s':>10}")
    for kind, variant in VARIANTS.items():
        for size, macs, largest in zip(SIZES, *counts[kind], strict=True):
            line = f"{kind:18}{size:8}{macs / 1e9:10.2f}{4 * largest / 2**20:14.1f}"
            if size <= LARGEST[kind]:
                times[kind][size] = run_child(seconds_per_image, variant, size)
                line += f"{times[kind][size]:10.3f}{macs / 1e9 / times[kind][size]:10.1f}"
            print(line, flush=True)
    if picture:
        draw_growth(SIZES, counts, picture, times)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "growth"))
    parser.add_argument("--sizes", type=int, nargs="*", default=(224, 384), help="image sizes for memory, in pixels")
    parser.add_argument("--variant", default="t2t_vit_14", help="model for memory")
    parser.add_argument("--picture", help="PNG file to draw growth to")
    arguments = parser.parse_args()
    if arguments.what == "memory":
        print_memory(arguments.sizes, arguments.variant)
    else:
        print_growth(arguments.picture)


if __name__ == "__main__":
    main()
