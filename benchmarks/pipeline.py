"""Speed of the input pipeline for training: decoding, cropping, and each augmentation.

    python -m benchmarks.pipeline

JPEG files of 500x375 pixels become batches of 64 images at 224x224. Each stage takes turns with plain decoding, always in a
fresh process, and figures are medians over the turns. The time beyond decoding is given as a fraction of the decoding time,
both in wall-clock time and in processor time. On a shared machine, only the latter is reliable.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

from benchmarks.harness import process_memory, run_child

DECODING = "decoding"
STAGES = ("crop", "crop, flip", "crop, flip, RandAugment", "everything", "keras-cv RandAugment", "Keras RandAugment")
BATCH_SIZE = 64


def write_images(folder: pathlib.Path, count: int = 256) -> None:
    """Writes JPEG files of two classes that compress about as well as photos do."""
    import numpy as np
    import tensorflow as tf

    y, x = np.mgrid[:375, :500]
    rng = np.random.default_rng(0)
    for index in range(count):
        class_folder = folder / str(index % 2)
        class_folder.mkdir(exist_ok=True)
        waves = sum(np.sin(rng.uniform(0.01, 0.3) * x + rng.uniform(0.01, 0.3) * y + i)[..., None] for i in range(8))
        pixels = 127 + 12 * waves * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (375, 500, 3))
        jpeg = tf.io.encode_jpeg(np.clip(pixels, 0, 255).astype("uint8"), quality=90)
        tf.io.write_file(str(class_folder / f"{index}.jpg"), jpeg)


def stage_batches(stage: str, source: Any) -> Any:
    """Returns the endless dataset of a stage."""
    import dataclasses

    import tensorflow as tf

    from keras_t2t.data import Augmentation, training_batches

    everything = Augmentation()
    plain = dataclasses.replace(everything, flip=False, rand_augment_num_ops=0, random_erase_prob=0.0, mixup=0.0, cutmix=0.0)
    augmentation = {
        "crop, flip": dataclasses.replace(plain, flip=True),
        "crop, flip, RandAugment": dataclasses.replace(plain, flip=True, rand_augment_num_ops=2),
        "everything": everything,
    }.get(stage, plain)
    batches = training_batches(source, (224, 224), BATCH_SIZE, augmentation)
    if stage == "keras-cv RandAugment":
        import keras_cv

        layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2)
    elif stage == "Keras RandAugment":
        import keras

        layer = keras.layers.RandAugment((0, 255))
    else:
        return batches
    return batches.map(lambda images, targets: (layer(images), targets), tf.data.AUTOTUNE)


def decoded_batches(source: Any) -> Any:
    """Returns an endless dataset that decodes images and does nothing else. It yields one number for each image."""
    import tensorflow as tf

    dataset = source.elements(None).repeat()
    dataset = dataset.map(lambda image, label: tf.reduce_max(tf.io.decode_jpeg(image, 3)), tf.data.AUTOTUNE)
    return dataset.batch(BATCH_SIZE).prefetch(1)


def measure(stage: str, folder: str, seconds: float) -> dict[str, float]:
    """Returns `"rate"` in images per second, `"processor"` seconds per image, and the `"peak"` memory in MiB."""
    from keras_t2t.data import from_folder

    source = from_folder(folder)["train"]
    iterator = iter(decoded_batches(source) if stage == DECODING else stage_batches(stage, source))
    for _ in range(2):
        next(iterator)
    start, processor_start, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(iterator)
        count += BATCH_SIZE
    elapsed, processor = time.perf_counter() - start, time.process_time() - processor_start
    return {"rate": count / elapsed, "processor": processor / count, "peak": process_memory() / 2**20}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=(DECODING, *STAGES), nargs="*", default=STAGES)
    parser.add_argument("--seconds", type=float, default=8, help="for each process")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{'':26}{'images/s/core':>14}{'decoding':>10}{'time beyond':>13}{'processor beyond':>18}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        write_images(pathlib.Path(folder))
        for name in arguments.stage:
            turns = [
                [run_child(measure, stage, folder, arguments.seconds) for stage in (DECODING, name)]
                for _ in range(arguments.turns)
            ]
            beyond = statistics.median(decoding["rate"] / stage["rate"] - 1 for decoding, stage in turns)
            processor = statistics.median(stage["processor"] / decoding["processor"] - 1 for decoding, stage in turns)
            rates = [statistics.median(turn[i]["rate"] for turn in turns) / cores for i in (1, 0)]
            peak = max(stage["peak"] for _, stage in turns)
            print(f"{name:26}{rates[0]:14.0f}{rates[1]:10.0f}{beyond:13.2f}{processor:18.2f}{peak:10.0f}", flush=True)


if __name__ == "__main__":
    main()
