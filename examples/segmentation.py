"""Trains a segmenter on a folder of images and masks, or on drawn shapes if there is no folder.

    python examples/segmentation.py
    python examples/segmentation.py --data camvid --ignore 11 --size 72 96 --epochs 20 --output runs/camvid \\
        --classes sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist

The folder has the subfolders `train`, `val` and `test`, each with `images` and `labels`: PNG files with the class of every
pixel. The backbone is `T2TViTTiny32(weights="cifar10")`, whose weights are part of the package. `--backbone random` starts from
random weights, and `--backbone patches` is a plain ViT of the same size from random weights. `--head deeplab` trains KerasHub's
DeepLabV3+ instead, which needs the extra `hub`.

An interrupted run continues where it stopped if it has an `--output` folder.
"""

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence

import keras
import numpy as np

import keras_t2t
from keras_t2t.data import MaskSource, from_masks, read_view, segmentation_batches
from keras_t2t.figures import new_figure
from keras_t2t.timing import median_time
from keras_t2t.training import SegmentationEvaluation, evaluate_segmenter

SHAPES = ("background", "disk", "bar", "stripes")
SHAPES_SIZE = (48, 64)
PATCHES = keras_t2t.T2TConfig(
    token_attention="convolution",
    soft_splits=((4, 4, 0),),
    embed_dim=128,
    depth=6,
    num_heads=4,
    mlp_ratio=1.9,
    learned_positions=True,
)
"""A plain ViT with hard patches that has the stride of `T2TViTTiny32`, and as many parameters in a segmenter, within 2%."""


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws random images and their masks.

    Args:
        count: Number of images.
        seed: Seed of the random generator.

    Returns:
        Images `(count, *SHAPES_SIZE, 3)` and the class of every pixel `(count, *SHAPES_SIZE)`, uint8.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPES_SIZE[0], : SHAPES_SIZE[1]]
    images = rng.normal(rng.uniform(60, 200, (count, 1, 1, 3)), 12, (count, *SHAPES_SIZE, 3))
    masks = np.zeros((count, *SHAPES_SIZE), "uint8")
    for image, mask in zip(images, masks, strict=True):
        for kind in rng.permutation([1, 2, 3])[: rng.integers(1, 4)]:
            row, column, angle = rng.uniform(8, SHAPES_SIZE[0] - 8), rng.uniform(8, SHAPES_SIZE[1] - 8), rng.uniform(0, np.pi)
            along = (y - row) * np.sin(angle) + (x - column) * np.cos(angle)
            across = (y - row) * np.cos(angle) - (x - column) * np.sin(angle)
            length, width = rng.uniform(9, 14), rng.uniform(3, 5)
            shape = along**2 + across**2 < length**2 if kind != 2 else (abs(along) < length) & (abs(across) < width)
            color = rng.uniform(0, 255, 3)
            image[shape] = color + rng.normal(0, 12, (shape.sum(), 3))
            if kind == 3:  # a striped disk, which cannot be recognized from single pixels
                image[shape & (along % 6 < 3)] = 255 - color
            mask[shape] = kind
    return np.clip(images, 0, 255).astype("uint8"), masks


def write_shapes(folder: pathlib.Path, count: int) -> None:
    """Draws `count` training images, and a fifth as many for validation and for the test, and writes them as PNG files."""
    for seed, (split, number) in enumerate({"train": count, "val": count // 5, "test": count // 5}.items()):
        for name, arrays in zip(("images", "labels"), draw(number, seed), strict=True):
            (folder / split / name).mkdir(parents=True)
            for index, array in enumerate(arrays):
                pixels = array if array.ndim == 3 else array[..., None]
                keras.utils.save_img(folder / split / name / f"{index:04}.png", pixels, scale=False)


def build(backbone: str, head: str, classes: Sequence[str], size: tuple[int, int]) -> keras.Model:
    """Returns a segmenter with the backbone `"cifar10"`, `"random"` or `"patches"` and the head `"mlp"` or `"deeplab"`."""
    if backbone == "patches":
        model = keras_t2t.T2TViT(PATCHES, input_shape=(32, 32, 3), classes=10)
    else:
        model = keras_t2t.T2TViTTiny32(weights="cifar10" if backbone == "cifar10" else None)
    if head == "deeplab":
        return keras_t2t.hub.deeplab(model, len(classes), image_size=size)
    return keras_t2t.segmenter(model, classes, image_size=size)


def fit(
    model: keras.Model,
    from_logits: bool,
    sources: dict[str, MaskSource],
    epochs: int,
    batch_size: int,
    seed: int,
    output: pathlib.Path,
) -> None:
    """Trains a model with AdamW and a cosine schedule, from the state of an interrupted run if there is one in `output`."""
    size = model.input_shape[1:3]
    steps = max(1, len(sources["train"]) // batch_size)
    warmup = max(1, epochs * steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(1e-5, epochs * steps, warmup_target=1e-3, warmup_steps=warmup)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits, ignore_class=sources["train"].ignore)
    # XLA takes twice as long for a step of this model on CPUs.
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05, clipnorm=1.0)
    model.compile(optimizer, loss, metrics=[], jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces the training step twice
    callbacks = [
        SegmentationEvaluation(sources["val"]),
        keras.callbacks.BackupAndRestore(output / "state"),
        keras.callbacks.CSVLogger(output / "log.csv", append=(output / "state").exists()),  # a new run starts a new log
    ]
    batches = segmentation_batches(sources["train"], size, min(batch_size, len(sources["train"])), seed=seed)
    model.fit(batches, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks, shuffle=False, verbose=2)


def draw_predictions(model: keras.Model, source: MaskSource, path: pathlib.Path, count: int = 4) -> None:
    """Saves a picture of test images, the classes that the model predicts, and the true classes."""
    preprocessing = keras_t2t.Preprocessing(image_size=model.input_shape[1:3], crop_fraction=1.0)
    chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
    figure = new_figure(7, 1.5 * count + 0.7)
    for row, index in enumerate(chosen):
        view = read_view(source.images[index], preprocessing)
        mask = source.read_mask(index)
        panels = {
            "image": view,
            "prediction": model.predict(view[None].astype("float32"), verbose=0)[0].argmax(-1),
            "truth": np.ma.masked_where(~source.has_class(mask), mask),
        }
        for column, (title, pixels) in enumerate(panels.items()):
            axes = figure.add_subplot(count, 3, 3 * row + column + 1)
            drawn = axes.imshow(pixels, cmap="tab20", vmin=0, vmax=max(19, len(source.classes) - 1), interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(title if row == 0 else "", fontsize=10)
    patches = [figure.axes[0].plot([], [], "s", color=drawn.cmap(drawn.norm(i)))[0] for i in range(len(source.classes))]
    figure.legend(patches, source.classes, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder with train, val and test (default: drawn shapes)")
    parser.add_argument("--classes", default=",".join(SHAPES), help="names of the classes, separated by commas")
    parser.add_argument("--ignore", type=int, help="index in the masks that means no class")
    parser.add_argument("--backbone", choices=("cifar10", "random", "patches"), default="cifar10")
    parser.add_argument("--head", choices=("mlp", "deeplab"), default="mlp")
    parser.add_argument("--size", type=int, nargs=2, default=SHAPES_SIZE, help="height and width for training")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, default=1000, help="number of drawn training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, help="folder for the model and the results (default: nothing is saved)")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        output = options.output or pathlib.Path(temporary) / "output"
        output.mkdir(parents=True, exist_ok=True)
        data = options.data or pathlib.Path(temporary) / "shapes"
        if options.data is None:
            write_shapes(data, options.images)
        classes = options.classes.split(",")
        sources = {
            split: from_masks(data / split / "images", data / split / "labels", classes, options.ignore)
            for split in ("train", "val", "test")
        }
        keras.utils.set_random_seed(options.seed)
        model = build(options.backbone, options.head, classes, tuple(options.size))
        start = time.perf_counter()
        fit(model, options.head == "deeplab", sources, options.epochs, options.batch_size, options.seed, output)
        seconds = time.perf_counter() - start
        report = evaluate_segmenter(model, sources["test"])
        for name, value in zip(classes, report.intersections_over_unions, strict=True):
            print(f"  {name:12}{value:.3f}")
        print(f"Mean intersection over union on {len(sources['test'])} test images: {report.mean_iou:.3f}")
        image = np.zeros((1, *options.size, 3), "float32")
        results = {
            "backbone": options.backbone,
            "head": options.head,
            "seed": options.seed,
            "epochs": options.epochs,
            "size": options.size,
            "mean_iou": report.mean_iou,
            "pixel_accuracy": report.pixel_accuracy,
            "iou": dict(zip(classes, report.intersections_over_unions.tolist(), strict=True)),
            "parameters": model.count_params(),
            "training_seconds": seconds,
            "latency_seconds": median_time(lambda: model.predict_on_batch(image)),
        }
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        model.save(output / "model.keras")
        draw_predictions(model, sources["test"], output / "predictions.png")
        if options.output:
            print(f"Wrote model.keras, results.json, log.csv and predictions.png to {output}")


if __name__ == "__main__":
    main()
