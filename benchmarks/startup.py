"""Start-up times: of the command line, until T2TViT14 is ready (importing, reading the file, creating, loading weights), until
it is exported and checked, and until its exports have classified their first image.

    python -m benchmarks.startup

Figures are medians over five fresh processes. The first ones are wall-clock times of whole processes, with the start of Python.
The file has the same format, names and shapes as the published one, but random values. Its size and digest replace the
published ones in the registry, so the file is verified as usual. The time to a first answer begins when the package has been
imported, and includes the import of the runtime. Each file is exported once.
"""

import dataclasses
import hashlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc

from benchmarks.export import export_path, random_images, write_export
from benchmarks.harness import run_child

PROCESSES = {
    "python -c pass": ("-c", "pass"),
    "keras-t2t --version": ("-m", "keras_t2t", "--version"),
    "keras-t2t --help": ("-m", "keras_t2t", "--help"),
    "keras-t2t predict t2t_vit_15 photo.jpg (an error)": ("-m", "keras_t2t", "predict", "t2t_vit_15", "photo.jpg"),
    "import tensorflow": ("-c", "import tensorflow"),
    "import keras_t2t": ("-c", "import keras_t2t"),
}
LINES = (
    "import keras_t2t, beyond keras:               {:.2f} s",
    "reading the published file:                   {:.2f} s",
    "... peak memory over its size:                {:.2f}",
    "T2TViT14(weights=None):                       {:.2f} s",
    'T2TViT14(weights="imagenet"), cached file:    {:.2f} s',
)
EXPORTS = ("saved_model", "tflite", "onnx", "openvino")
"""Rows of `benchmarks.export`."""


def time_process(arguments: tuple[str, ...]) -> float:
    """Returns the seconds that Python takes from start to end with these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True)
    return time.perf_counter() - start


def measure(path: str, digest: str) -> list[float]:
    """Returns the figures of one start, in the order of `LINES`. `KERAS_HOME` must be the folder of the cache."""
    import keras

    keras.ops.ones(1)
    start = time.perf_counter()
    import keras_t2t

    imported = time.perf_counter() - start

    from keras_t2t import registry
    from keras_t2t.weights.formats.torch_file import read_torch_file

    size = os.path.getsize(path)
    registry.PUBLISHED_WEIGHTS = (
        dataclasses.replace(registry.pretrained_weights_of("t2t_vit_14")["imagenet"], size=size, digest=digest),
    )
    start = time.perf_counter()
    read_torch_file(path)
    read = time.perf_counter() - start

    tracemalloc.start()
    read_torch_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    start = time.perf_counter()
    keras_t2t.T2TViT14(weights=None)
    created = time.perf_counter() - start
    start = time.perf_counter()
    keras_t2t.T2TViT14(weights="imagenet")
    return [imported, read, peak / size, created, time.perf_counter() - start]


def first_answer(row: str, folder: str) -> float:
    """Returns the seconds from opening an export to its first output."""
    import keras_t2t

    images = random_images(1)
    start = time.perf_counter()
    keras_t2t.open_exported(export_path(folder, row, 1)).run(images)
    return time.perf_counter() - start


def write_cache(home: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Writes a file like the published one to the cache in `home`. Returns its path and its digest."""
    from keras_t2t.registry import pretrained_weights_of
    from keras_t2t.variants import VARIANTS
    from tests.conftest import seeded_parameters
    from tests.torch_files import Ordered, legacy_file

    content = legacy_file({"state_dict_ema": Ordered(seeded_parameters(VARIANTS["t2t_vit_14"].config, (224, 224)))})
    path = home / "models" / "keras_t2t" / pretrained_weights_of("t2t_vit_14")["imagenet"].file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path, f"sha384:{hashlib.sha384(content).hexdigest()}"


def main(runs: int = 5) -> None:
    """Prints the median of each figure over `runs` processes."""
    for name, arguments in PROCESSES.items():
        times = [time_process(arguments) for _ in range(runs)]
        print(f"{name + ':':52} {statistics.median(times):.2f} s")
    with tempfile.TemporaryDirectory() as home:
        path, digest = write_cache(pathlib.Path(home))
        figures = [run_child(measure, str(path), digest, environment={"KERAS_HOME": home}) for _ in range(runs)]
    for line, values in zip(LINES, zip(*figures, strict=True), strict=True):
        print(line.format(statistics.median(values)))
    with tempfile.TemporaryDirectory() as folder:
        for row in EXPORTS:
            print(f"{f'export to {row}:':46} {run_child(write_export, row, 1, folder):.2f} s")
            times = [run_child(first_answer, row, folder) for _ in range(runs)]
            print(f"{f'{row} to a first answer:':46} {statistics.median(times):.2f} s")


if __name__ == "__main__":
    main()
