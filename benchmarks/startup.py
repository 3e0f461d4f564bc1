"""How long it takes until T2TViT14 stands ready: importing, reading the published file, creating, loading cached weights.

    python -m benchmarks.startup

Medians over five fresh processes. The file has the form, the names and the shapes of the published one, and random values.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile

CODE = """
import os, sys, time, tracemalloc
import keras
keras.ops.ones(1)
start = time.perf_counter()
import keras_t2t
imported = time.perf_counter()
from keras_t2t.weights.formats.torch_file import read_torch_file
begun = time.perf_counter()
read_torch_file(sys.argv[1])
read = time.perf_counter()
tracemalloc.start()
read_torch_file(sys.argv[1])
memory = tracemalloc.get_traced_memory()[1] / os.path.getsize(sys.argv[1])
tracemalloc.stop()
resumed = time.perf_counter()
keras_t2t.T2TViT14(weights=None)
created = time.perf_counter()
os.environ["KERAS_HOME"] = sys.argv[2]
keras_t2t.T2TViT14(weights="imagenet")
print(imported - start, read - begun, memory, created - resumed, time.perf_counter() - created)
"""
LINES = (
    "import keras_t2t, beyond keras:               {:.2f} s",
    "reading the published file:                   {:.2f} s",
    "... peak of memory over its size:             {:.2f}",
    "T2TViT14(weights=None):                       {:.2f} s",
    'T2TViT14(weights="imagenet"), cached weights: {:.2f} s',
)


def write_files(folder):
    """Writes a file as it was published, and what the cache makes of it; returns the path of the first."""
    import keras_t2t
    from keras_t2t.configs import VARIANTS
    from keras_t2t.weights.registry import pretrained_weights_of
    from tests.conftest import seeded_parameters
    from tests.torch_files import Ordered, legacy_file

    path = folder / pretrained_weights_of("t2t_vit_14")["imagenet"].file
    parameters = seeded_parameters(VARIANTS["t2t_vit_14"].config, (224, 224))
    path.write_bytes(legacy_file({"state_dict_ema": Ordered(parameters)}))
    cache = folder / "models" / "keras_t2t"
    cache.mkdir(parents=True)
    keras_t2t.T2TViT14(weights=path).save_weights(cache / f"{path.name}.weights.h5")
    return path


def main(runs=5):
    with tempfile.TemporaryDirectory() as folder:
        path = write_files(pathlib.Path(folder))
        command = [sys.executable, "-c", CODE, str(path), folder]
        outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(runs)]
    for line, values in zip(LINES, zip(*outputs, strict=True), strict=True):
        print(line.format(statistics.median(map(float, values))))


if __name__ == "__main__":
    main()
