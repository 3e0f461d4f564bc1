"""What looking inside costs: the peak of memory, and how a model's own time grows with the image.

    python benchmarks/analysis.py memory                       each analysis of T2TViT14 in a process of its own
    python benchmarks/analysis.py growth --picture growth.png  T2TViT14 and T2TViTt14, one image, from 112 to 1024 pixels

Memory is the peak of the whole process, TensorFlow included (the line "nothing" is what is there without any analysis). The
transformer is left out above 448 pixels: its first matrix alone takes 2.6 GB at 640.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

SIZES = (112, 160, 224, 320, 448, 640, 1024)
LARGEST = {"performer": 1024, "transformer": 448}
ANALYSES = ("nothing", "attention_maps", "attention_rollout", "class_evidence", "redundancy", "feature_maps")
VARIANTS = {"performer": "t2t_vit_14", "transformer": "t2t_vit_t_14"}


def memory(name, size, variant):
    """Runs one analysis of one image; returns the peak in MiB."""
    import numpy as np

    import keras_t2t

    model = keras_t2t.T2TViT(variant, input_shape=(size, size, 3))
    images = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3))
    if name == "nothing":
        model.predict_on_batch(images)
    else:
        getattr(keras_t2t.analysis, name)(model, images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(kind, size):
    """Returns the median time for one image."""
    import keras_t2t

    model = keras_t2t.T2TViT(VARIANTS[kind], input_shape=(size, size, 3))
    return keras_t2t.analysis.latency(model)


def run(*arguments):
    """Returns what this file prints as a process of its own."""
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "child", *map(str, arguments)]
    return json.loads(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )


def print_memory(sizes, variant):
    print(f"{'peak of the process, MiB':24}" + "".join(f"{f'{size}x{size}':>12}" for size in sizes))
    for name in ANALYSES:
        print(f"{name:24}" + "".join(f"{run('memory', name, size, variant):12.0f}" for size in sizes), flush=True)


def print_growth(picture):
    import keras_t2t
    from keras_t2t.analysis import draw_growth, growth

    counts = growth(keras_t2t.configs.VARIANTS["t2t_vit_14"].config, SIZES)
    times = {kind: {} for kind in VARIANTS}
    print(f"{'token attention':18}{'pixels':>8}{'G MACs':>10}{'largest, MiB':>14}{'seconds':>10}{'G MACs/s':>10}")
    for kind in VARIANTS:
        for size, macs, largest in zip(SIZES, *counts[kind], strict=True):
            line = f"{kind:18}{size:8}{macs / 1e9:10.2f}{4 * largest / 2**20:14.1f}"
            if size <= LARGEST[kind]:
                times[kind][size] = run("seconds", kind, size)
                line += f"{times[kind][size]:10.3f}{macs / 1e9 / times[kind][size]:10.1f}"
            print(line, flush=True)
    if picture:
        draw_growth(SIZES, counts, picture, times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "growth", "child"))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="*", default=(224, 384))
    parser.add_argument("--variant", default="t2t_vit_14")
    parser.add_argument("--picture", help="a PNG for the growth")
    options = parser.parse_args()
    if options.what == "child":
        name, *rest = options.arguments
        print(memory(rest[0], int(rest[1]), rest[2]) if name == "memory" else seconds(rest[0], int(rest[1])))
    elif options.what == "memory":
        print_memory(options.sizes, options.variant)
    else:
        print_growth(options.picture)


if __name__ == "__main__":
    main()
