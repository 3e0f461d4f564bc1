"""Cost of the segmenters of `examples/segmentation.py`: parameters, a training step with 8 images, and the time of one image.

    TF_ENABLE_ONEDNN_OPTS=1 python -m benchmarks.segmentation              at 72x96 pixels, as in docs/dense-prediction.md
    TF_ENABLE_ONEDNN_OPTS=1 python -m benchmarks.segmentation --size 180 240

The models take turns on the same images. The ratio is the time divided by that of the first model (the median over all turns).
"""

import argparse
import statistics

import keras
import numpy as np

from benchmarks.harness import in_turns
from examples.segmentation import build

CLASSES = [str(index) for index in range(11)]
MODELS = {"T2TViTTiny32": ("random", "mlp"), "plain ViT, 4x4 patches": ("patches", "mlp"), "DeepLabV3+": ("random", "deeplab")}


def compiled(backbone: str, head: str, size: tuple[int, int]) -> keras.Model:
    """Returns a segmenter that is ready for training."""
    model = build(backbone, head, CLASSES, size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=head == "deeplab")
    model.compile(keras.optimizers.AdamW(1e-3), loss, metrics=[], jit_compile=False)
    return model


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(72, 96), help="height and width of the images")
    parser.add_argument("--turns", type=int, default=15, help="number of turns")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (8, *options.size, 3)).astype("float32")
    masks = rng.integers(0, len(CLASSES), (8, *options.size))
    models = {name: compiled(*arguments, tuple(options.size)) for name, arguments in MODELS.items()}
    steps = in_turns(*(lambda m=m: m.train_on_batch(images, masks) for m in models.values()), turns=options.turns)
    singles = in_turns(*(lambda m=m: m.predict_on_batch(images[:1]) for m in models.values()), turns=options.turns)
    print(f"{'':26}{'parameters':>12}{'training step':>22}{'one image':>22}")
    for name, model, *times in zip(models, models.values(), np.transpose(steps), np.transpose(singles), strict=True):
        cells = (
            f"{1000 * statistics.median(each):9.0f} ms{statistics.median(each / first):6.2f} times"
            for each, first in zip(times, (np.array(steps)[:, 0], np.array(singles)[:, 0]), strict=True)
        )
        print(f"{name:26}{model.count_params():12,}{''.join(cells)}")


if __name__ == "__main__":
    main()
