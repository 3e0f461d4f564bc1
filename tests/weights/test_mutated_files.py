"""Randomly damaged files: five thousand mutations of a file in each format are read or refused, without a crash."""

import subprocess
import sys

import numpy as np
import pytest

from tests.torch_files import Call, Ordered, legacy_file, zip_file

pytestmark = pytest.mark.slow

MUTATIONS = """
import resource, signal, sys, pathlib
import numpy as np
import keras_t2t
from keras_t2t.weights.reading import read_checkpoint

source, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data, path = pathlib.Path(source).read_bytes(), pathlib.Path(source + ".mutated")
rng = np.random.default_rng(seed)
refused = 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(count):
    mutated = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        kind, at = rng.integers(4), rng.integers(len(mutated))
        if kind == 0:
            mutated[at] = rng.integers(256)
        elif kind == 1:
            mutated[at] ^= 1 << rng.integers(8)
        elif kind == 2:
            del mutated[at : at + rng.integers(1, 9)]
        else:
            mutated[at:at] = mutated[rng.integers(len(mutated)) :][: rng.integers(1, 40)]
    path.write_bytes(mutated)
    signal.alarm(2)
    try:
        arrays = read_checkpoint(path).arrays
        assert sum(array.size for array in arrays.values()) < 10 * len(mutated)
    except keras_t2t.CheckpointError:
        refused += 1
    signal.alarm(0)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 100_000, grown
print(refused)
"""


@pytest.mark.parametrize("writer", [legacy_file, zip_file])
def test_mutated_files_are_read_or_refused(writer, tmp_path):
    """Runs in a separate process, which detects crashes, hangs of two seconds (the alarm kills it) and growing memory."""
    state = {f"blocks.{i}.weight": np.arange(i + 2, dtype="float32") for i in range(5)}
    content = {
        "args": Call("argparse", "Namespace", (), {"lr": 1e-3}),
        "state_dict_ema": Ordered(state),
        "epochs": [1, 2.5, (3,)],
    }
    source = tmp_path / "model.pth"
    source.write_bytes(writer(content))
    command = [sys.executable, "-c", MUTATIONS, str(source), "5000", "7"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 2000 < int(result.stdout) < 5000
