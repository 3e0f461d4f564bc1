"""Breaks the code in one place at a time, and checks that the fast tests notice.

    python -m tests.mutations               all mutations, about ten minutes
    python -m tests.mutations soft_split    those of files whose paths contain a word

The code is changed in a copy of the repository. For each mutation, only the fast tests in the given file or folder run. The
first test that fails ends the run, and must pass without the mutation. `test_house.py` checks that the mutations still apply.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A change of a file that has to make a test fail.

    Attributes:
        file: Path of the file in the package.
        old: Text that occurs once in the file.
        new: Text that replaces it.
        tests: File or folder of tests.
    """

    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation("layers/soft_split.py", "width * rows + columns", "width * columns + rows", "layers/test_soft_split.py"),
    Mutation("layers/attention.py", "queries.shape[-1] ** -0.5", "x.shape[-1] ** -0.5", "layers/test_attention.py"),
    Mutation("layers/token_performer.py", "+ totals  #", "#", "layers/test_token_attention.py"),
    Mutation("layers/token_performer.py", "1e-8 * num_features", "1e-8", "layers/test_token_attention.py"),
    Mutation("layers/drop_path.py", "(1,) * (len", "(None,) * (len", "layers/test_drop_path.py"),
    Mutation("layers/fast_dense.py", "+ x * density", "+ density", "layers/test_lean_gradients.py"),
    Mutation("layers/fast_layer_norm.py", "- standardized * along", "+ standardized * along", "layers/test_lean_gradients.py"),
    Mutation("layers/position_embedding.py", "[table[:1], ops", "[table[-1:], ops", "layers/test_position_embedding.py"),
    Mutation("inference/optimize.py", "_array(norm.beta) @ kernel + bias", "bias", "inference"),
    Mutation(
        "exporting/exporter.py",
        "not report.difference <= limit:  # also",
        "report.difference > limit:  #",
        "exporting/test_exporter.py",
    ),
    Mutation("preprocessing.py", "0.224", "0.225", "test_preprocessing.py"),
    Mutation("analysis/attention.py", "step @ product", "product @ step", "analysis/test_attention.py"),
    Mutation("weights/loading.py", "if values[name] != value:", "if False:", "weights/test_loading.py"),
    Mutation("weights/formats/inert_pickle.py", "> MAX_OPERATIONS:", "< 0:", "weights/test_hostile_files.py"),
    Mutation("training/optimizers.py", "decay(excluded)", "decay([])", "training/test_optimizers.py"),
    Mutation("keras_internals.py", "momentum, 1.0)", "momentum, 0.9)", "training/test_optimizers.py"),
    Mutation(
        "training/evaluation.py",
        "[labels.index(name) for name in classes]",
        "range(len(classes))",
        "training/test_evaluation.py",
    ),
    Mutation("studies/results.py", "ddof=1", "ddof=0", "studies"),
    Mutation("data/boxes.py", "(x_min - 1, y_min - 1, x_max, y_max)", "(x_min, y_min, x_max, y_max)", "data_pipeline"),
    Mutation("data/decoding.py", "return _decode_in_graphs(", "return decode(", "data_pipeline/test_decoding.py"),
    Mutation("data/pipeline.py", "* shard[1] + shard[0]", "* shard[1]", "data_pipeline/test_pipeline.py"),
)


def first_failure(folder: pathlib.Path, tests: str) -> str | None:
    """Runs fast tests until one fails. Returns its name, or `None` if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", tests]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].removeprefix("FAILED ").partition(" - ")[0] if failed else None


def main() -> None:
    """Runs the tests for each mutation, and exits with an error if all tests pass for one of them."""
    words = sys.argv[1:]
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.file for word in words)]
    if not chosen:
        sys.exit(f"There is no mutation of a file whose path contains {' or '.join(words)}")
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "site", "exports"))
        for mutation in chosen:
            path = copy / "keras_t2t" / mutation.file
            text = path.read_text()
            path.write_text(text.replace(mutation.old, mutation.new))
            failed = first_failure(copy, f"tests/{mutation.tests}")
            path.write_text(text)
            noticed = failed is not None and first_failure(copy, failed) is None
            missed += not noticed
            print(
                f"{mutation.file}: {mutation.old!r} -> {mutation.new!r}\n    {failed if noticed else 'NOT NOTICED'}", flush=True
            )
    sys.exit(f"{missed} mutations were not noticed" if missed else 0)


if __name__ == "__main__":
    main()
