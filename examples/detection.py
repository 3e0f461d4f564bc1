"""Trains KerasHub's RetinaNet on a folder in the layout of Pascal VOC, or on drawn shapes if there is no folder.

    python -m examples.detection
    python -m examples.detection --data bccd --size 192 192 --epochs 12 --output runs/bccd

The folder has the subfolders `JPEGImages`, `Annotations` and `ImageSets/Main` with the splits `train`, `val` and `test`. The
backbone is `T2TViTTiny32(weights="cifar10")`, whose weights are part of the package. Needs the extras `hub`, `detect` and
`plots`.

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
from examples.segmentation import SHAPES, draw
from keras_t2t.data import BoxSource, detection_batches, from_voc
from keras_t2t.figures import PALETTE, new_figure
from keras_t2t.training import DetectionEvaluation, coco_average_precision, detect

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def write_shapes(folder: pathlib.Path, count: int) -> None:
    """Draws `count` training images, and a fifth as many for validation and for the test, in the layout of Pascal VOC."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for seed, (split, number) in enumerate({"train": count, "val": count // 5, "test": count // 5}.items()):
        names = [f"{split}{index:04}" for index in range(number)]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
        for name, image, mask in zip(names, *draw(number, seed), strict=True):
            keras.utils.save_img(folder / "JPEGImages" / f"{name}.png", image, scale=False)
            objects = []
            for kind in np.unique(mask[mask > 0]):
                y, x = np.nonzero(mask == kind)  # what is visible of the shape
                objects.append(OBJECT.format(SHAPES[kind], x.min() + 1, y.min() + 1, x.max() + 1, y.max() + 1))
            size = f"<size><width>{image.shape[1]}</width><height>{image.shape[0]}</height></size>"
            content = f"<annotation>{size}{''.join(objects)}</annotation>"
            (folder / "Annotations" / f"{name}.xml").write_text(content, encoding="utf-8")


def build(classes: int, size: tuple[int, int]) -> keras.Model:
    """Returns a detector with anchors from 1/12 of the image's shorter side on."""
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    return keras_t2t.hub.detector(model, classes, image_size=size, min_level=3, max_level=5, anchor_size=min(size) / 96)


def fit(
    model: keras.Model, sources: dict[str, BoxSource], epochs: int, batch_size: int, seed: int, output: pathlib.Path
) -> None:
    """Trains a detector with AdamW and a cosine schedule, from the state of an interrupted run if there is one in `output`."""
    size = model.input_shape[1:3]
    batch_size = min(batch_size, len(sources["train"]))
    steps = len(sources["train"]) // batch_size
    warmup = max(1, epochs * steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(1e-6, epochs * steps, warmup_target=3e-4, warmup_steps=warmup)
    model.compile(optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-4, global_clipnorm=1.0), jit_compile=False)
    callbacks = [
        DetectionEvaluation(sources["val"]),
        keras.callbacks.BackupAndRestore(output / "state"),
        keras.callbacks.CSVLogger(output / "log.csv", append=(output / "state").exists()),  # a new run starts a new log
    ]
    batches = detection_batches(sources["train"], size, batch_size, seed=seed)
    model.fit(batches, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks, shuffle=False, verbose=2)


def draw_boxes(model: keras.Model, source: BoxSource, path: pathlib.Path, count: int = 4, threshold: float = 0.4) -> None:
    """Saves a picture of test images with the boxes that the model is sure of, and with the true boxes."""
    chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
    few = BoxSource(source.images[chosen], source.boxes[chosen], source.labels[chosen], source.classes)
    figure = new_figure(8, 3 * count)
    for row, found in enumerate(detect(model, few)):
        pixels = keras.utils.img_to_array(keras.utils.load_img(few.images[row])).astype("uint8")
        sure, true = found.scores >= threshold, few.labels[row] >= 0
        panels = {
            f"prediction, confidence of at least {threshold}": (found.boxes[sure], found.labels[sure]),
            "truth": (few.boxes[row][true], few.labels[row][true]),
        }
        for column, (title, (boxes, labels)) in enumerate(panels.items()):
            axes = figure.add_subplot(count, 2, 2 * row + column + 1)
            axes.imshow(pixels)
            axes.set(xlim=(0, pixels.shape[1]), ylim=(pixels.shape[0], 0))  # boxes may reach beyond the image
            axes.set_axis_off()
            axes.set_title(title if row == 0 else "", fontsize=10)
            for (x_min, y_min, x_max, y_max), label in zip(boxes, labels, strict=True):
                corners = [x_min, x_max, x_max, x_min, x_min], [y_min, y_min, y_max, y_max, y_min]
                axes.plot(*corners, color=PALETTE[label % len(PALETTE)], linewidth=1.5)
    colors = [figure.axes[0].plot([], [], color=PALETTE[i % len(PALETTE)])[0] for i in range(len(source.classes))]
    figure.legend(colors, source.classes, loc="outside lower center", ncols=len(colors), frameon=False)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="folder in the layout of Pascal VOC (default: drawn shapes)")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 96), help="height and width for training, multiples of 32")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, default=600, help="number of drawn training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, help="folder for the model and the results (default: nothing is saved)")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as temporary:
        output = options.output or pathlib.Path(temporary) / "output"
        output.mkdir(parents=True, exist_ok=True)
        data = options.data or pathlib.Path(temporary) / "shapes"
        if options.data is None:
            write_shapes(data, options.images)
        classes = from_voc(data).classes
        sources = {split: from_voc(data, split, classes) for split in ("train", "val", "test")}
        keras.utils.set_random_seed(options.seed)
        model = build(len(classes), tuple(options.size))
        start = time.perf_counter()
        fit(model, sources, options.epochs, options.batch_size, options.seed, output)
        seconds = time.perf_counter() - start
        report = coco_average_precision(detect(model, sources["test"]), sources["test"])
        for name, *values in zip(classes, report.average_precisions, report.average_precisions_at_50, strict=True):
            print(f"  {name:12}AP {values[0]:.3f}, AP50 {values[1]:.3f}")
        print(
            f"On {len(sources['test'])} test images: AP {report.average_precision:.3f}, "
            f"AP50 {report.average_precision_at_50:.3f}"
        )
        results = {
            "seed": options.seed,
            "epochs": options.epochs,
            "size": list(options.size),
            "average_precision": report.average_precision,
            "average_precision_at_50": report.average_precision_at_50,
            "average_precisions": dict(zip(classes, report.average_precisions.tolist(), strict=True)),
            "average_precisions_at_50": dict(zip(classes, report.average_precisions_at_50.tolist(), strict=True)),
            "parameters": model.count_params(),
            "training_seconds": seconds,
        }
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        model.save_to_preset(output / "preset")
        draw_boxes(model, sources["test"], output / "boxes.png")
        if options.output:
            print(f"Wrote a preset, results.json, log.csv and boxes.png to {output}")


if __name__ == "__main__":
    main()
