"""How fast training images are made ready, image by image: decoding, cropping, and each augmentation.

    python benchmarks/pipeline.py

JPEG files of 500x375 pixels become batches of 64 at 224x224. Each stage and plain decoding take turns, each time in a process
of its own, and figures are medians over the turns. The time beyond decoding, as a part of it, is given by the clock and by the
processor: on a machine that others use, only the second holds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

STAGES = ("crop", "crop, flip", "crop, flip, RandAugment", "everything", "keras-cv RandAugment", "Keras RandAugment")
BATCH = 64


def write_images(folder, count=256):
    """Writes JPEG files of two classes that compress about as photographs do."""
    import numpy as np
    import tensorflow as tf

    y, x = np.mgrid[:375, :500]
    rng = np.random.default_rng(0)
    for number in range(count):
        (folder / str(number % 2)).mkdir(exist_ok=True)
        waves = sum(np.sin(rng.uniform(0.01, 0.3) * x + rng.uniform(0.01, 0.3) * y + i)[..., None] for i in range(8))
        pixels = 127 + 12 * waves * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (375, 500, 3))
        jpeg = tf.io.encode_jpeg(np.clip(pixels, 0, 255).astype("uint8"), quality=90)
        tf.io.write_file(str(folder / str(number % 2) / f"{number}.jpg"), jpeg)


def stage_of(name, source):
    """Returns the endless batches of a stage."""
    import dataclasses

    import tensorflow as tf

    from keras_t2t.data import Augmentation, training_batches

    everything = Augmentation()
    plain = dataclasses.replace(everything, flip=False, rand_augment_num_ops=0, random_erase_prob=0.0, mixup=0.0, cutmix=0.0)
    augmentation = {
        "crop, flip": dataclasses.replace(plain, flip=True),
        "crop, flip, RandAugment": dataclasses.replace(plain, flip=True, rand_augment_num_ops=2),
        "everything": everything,
    }.get(name, plain)
    batches = training_batches(source, (224, 224), BATCH, augmentation)
    if name == "keras-cv RandAugment":
        import keras_cv

        layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=2)
        return batches.map(lambda images, targets: (layer(images), targets), tf.data.AUTOTUNE)
    if name == "Keras RandAugment":
        import keras

        layer = keras.layers.RandAugment((0, 255))
        return batches.map(lambda images, targets: (layer(images), targets), tf.data.AUTOTUNE)
    return batches


def decoded(source):
    """Returns endless batches of one number for each decoded image: decoding and nothing else."""
    import tensorflow as tf

    dataset = source.elements(None).repeat()
    dataset = dataset.map(lambda image, label: tf.reduce_max(tf.io.decode_jpeg(image, 3)), tf.data.AUTOTUNE)
    return dataset.batch(BATCH).prefetch(1)


def measure(name, folder, seconds):
    """Returns images a second, seconds of processor time an image, and the peak of memory in MiB."""
    from keras_t2t.data import from_folder

    source = from_folder(folder)["train"]
    iterator = iter(decoded(source) if name == "decoding" else stage_of(name, source))
    for _ in range(2):
        next(iterator)
    start, processor_start, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(iterator)
        count += BATCH
    seconds, processor = time.perf_counter() - start, time.process_time() - processor_start
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return {"rate": count / seconds, "processor": processor / count, "peak": peak}


def run(name, folder, seconds):
    """Measures a stage in a process of its own."""
    command = [sys.executable, __file__, "--child", folder, "--stage", name, "--seconds", str(seconds)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("decoding", *STAGES), nargs="*", default=STAGES)
    parser.add_argument("--seconds", type=float, default=8, help="for each process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.stage[0], arguments.child, arguments.seconds)))
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{'':26}{'images/s/core':>14}{'decoding':>10}{'time beyond':>13}{'processor beyond':>18}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        write_images(pathlib.Path(folder))
        for name in arguments.stage:
            turns = [[run(kind, folder, arguments.seconds) for kind in ("decoding", name)] for _ in range(arguments.turns)]
            beyond = statistics.median(decoding["rate"] / stage["rate"] - 1 for decoding, stage in turns)
            processor = statistics.median(stage["processor"] / decoding["processor"] - 1 for decoding, stage in turns)
            rates = [statistics.median(turn[i]["rate"] for turn in turns) / cores for i in (1, 0)]
            peak = max(stage["peak"] for _, stage in turns)
            print(f"{name:26}{rates[0]:14.0f}{rates[1]:10.0f}{beyond:13.2f}{processor:18.2f}{peak:10.0f}", flush=True)


if __name__ == "__main__":
    main()
