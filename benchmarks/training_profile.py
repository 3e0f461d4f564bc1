"""Where the time of a training step on a CPU goes: the fraction of each kind of operation.

    python -m benchmarks.training_profile

The step is that of `benchmarks.training` in graph mode and float32. TensorFlow's profiler records three steps. The times of
operations that run at the same time on two cores are added up.
"""

import collections
import pathlib
import tempfile

from benchmarks.harness import run_child
from benchmarks.training import BATCHES, training_step

STEPS = 3
SMALLEST = 0.01


def fractions(name: str) -> dict[str, float]:
    """Returns the fraction of the time of all operations that each kind takes: matrix products, the optimizer, and the others
    by the name that TensorFlow has for them.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    step = training_step(name, dtype="float32", jit_compile=False)
    for _ in range(2):
        step()
    seconds: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(STEPS):
                step()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = XSpace.FromString(file.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                kind = kind_of(plane.event_metadata[event.metadata_id].name)
                if kind:
                    seconds[kind] += event.duration_ps / 1e12
    return {kind: value / seconds.total() for kind, value in seconds.most_common()}


def kind_of(event: str) -> str | None:
    """Returns the kind of an operation from the name of its event, `NAME:TYPE`, or `None` for other events."""
    name, _, operation = event.rpartition(":")
    if not name or name.endswith(":") or not operation.isidentifier():  # other events are called "Class::Method", for example
        return None
    if "MatMul" in operation:
        return "matrix products"
    if name.startswith("layerwise_adam_w/"):
        return "optimizer"
    return operation.removeprefix("_Mkl")


def main() -> None:
    """Prints the kinds that take at least 1% of the time, and the rest."""
    for name in BATCHES:
        kinds = run_child(fractions, name)
        shown = {kind: value for kind, value in kinds.items() if value >= SMALLEST}
        print(f"{name}:")
        for kind, value in {**shown, "all others": 1 - sum(shown.values())}.items():
            print(f"    {kind:28}{value:6.1%}")


if __name__ == "__main__":
    main()
