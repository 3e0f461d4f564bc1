"""Weights that have names, on this machine: shipped, or fetched once, verified, and kept in the cache of Keras.

The cache never holds a file that was not verified: a download gets its name only after that, in one step, so that any number of
processes can start at once; at worst they fetch the same file twice.
"""

import os
import pathlib
import shutil
import tempfile
import time
import warnings

import keras

from keras_t2t.configs import VARIANTS, token_grid
from keras_t2t.errors import CheckpointError, DownloadError
from keras_t2t.weights.loading import LoadReport, load_checkpoint
from keras_t2t.weights.matching import match
from keras_t2t.weights.reading import read_checkpoint
from keras_t2t.weights.registry import MIRROR, PretrainedWeights

TIMEOUT = 30  # seconds without a byte from the server


def load_pretrained(model: keras.Model, weights: PretrainedWeights) -> LoadReport:
    """Loads pretrained weights into a model, from the cache if they are there.

    Args:
        model: The model, with a head for the classes of `weights` or without a head.
        weights: The weights.

    Raises:
        DownloadError: If they are not cached and cannot be downloaded, or if the download is not the published file.
        CheckpointError: If they do not fit the model.
    """
    return load_checkpoint(model, weights.path or fetch(weights))


def cache_folder() -> pathlib.Path:
    """Where published weights are kept: `models/keras_t2t` in the folder that the environment variable `KERAS_HOME` names."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(home).expanduser().absolute() / "models" / "keras_t2t"


def fetch(source: PretrainedWeights) -> pathlib.Path:
    """Returns the verified file of published weights, downloaded if it is not in the cache.

    Raises:
        DownloadError: if it cannot be fetched or kept, or is not what was published.
    """
    path, cached = cache_folder() / source.file, ""
    if path.exists():
        if (problem := _problem(source, path)) is None:
            _record(source, path)
            return path
        cached = f". The file of that name there was not used: {problem}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".downloading-") as folder:
            temporary = pathlib.Path(folder, source.file)
            _download(source, temporary)
            if problem := _problem(source, temporary):
                raise DownloadError(f"The file from {source.url} is not the one that was published: {problem}")
            _record(source, temporary)
            os.replace(temporary, path)
    except DownloadError as error:
        raise DownloadError(f"{error}{cached}") from error.__cause__
    except OSError as error:
        raise DownloadError(f"Cannot keep {source.file} in {path.parent}: {error}. Set KERAS_HOME to another folder") from error
    return path


def _download(source, path):
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=TIMEOUT)(source.url, str(path), None)
    except (requests.RequestException, ValueError) as error:  # pooch reads numbers in the answer of the server
        raise DownloadError(
            f"Cannot download {source.file} from {source.url}: {error}. With network access elsewhere, put the file into "
            f"{cache_folder()} by hand, or name a mirror with the environment variable {MIRROR}"
        ) from error


def _sweep(folder):
    """Removes what processes that were killed have left, a day later."""
    for path in folder.glob(".*ing-*"):
        if time.time() - path.stat().st_mtime > 86_400:
            shutil.rmtree(path, ignore_errors=True)


def _problem(source, path):
    """Returns what is wrong with a file of published weights, or `None`."""
    if source.size not in (None, path.stat().st_size):
        return f"it has {path.stat().st_size} bytes, not {source.size}"
    if source.digest is not None:
        algorithm, digest = source.digest.split(":")
        found = _digest(path, algorithm)
        if not found.startswith(digest):
            return f"its {algorithm} digest is {found}, not {digest}"
        if _is_whole(source):
            return None
    record = _record_path(source)
    if record.exists():
        found, recorded = _digest(path, "sha256"), record.read_text().strip()
        changed = f"its sha256 digest is {found}, not {recorded}, which {record} has recorded when the file was first used"
        return None if found == recorded else changed
    try:
        config = VARIANTS[source.variant].config
        grid = token_grid(config.soft_splits, *source.preprocessing.image_size)
        match(read_checkpoint(path).arrays, config, grid, classes=source.classes)
    except CheckpointError as error:
        return str(error).replace(str(path), "it")
    return None


def _is_whole(source):
    """Whether the published digest is a whole one, and not just its first digits."""
    return source.digest is not None and len(source.digest) > 64


def _record_path(source):
    """Where the digest of a file that was published without a whole one is kept from its first use on."""
    return cache_folder() / f"{source.file}.sha256"


def _record(source, path):
    """Keeps the digest of a file, if it was published without a whole one and is used for the first time."""
    record = _record_path(source)
    if _is_whole(source) or record.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=record.parent, prefix=".recording-") as folder:
            pathlib.Path(folder, "sha256").write_text(_digest(path, "sha256"))
            os.replace(pathlib.Path(folder, "sha256"), record)
    except OSError as error:
        warnings.warn(f"The digest of {source.file} could not be recorded ({error})", stacklevel=5)


def _digest(path, algorithm):
    import pooch  # takes 0.2 seconds

    return pooch.file_hash(str(path), algorithm)
