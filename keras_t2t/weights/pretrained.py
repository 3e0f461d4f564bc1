"""Loading pretrained weights, which ship with the package or are downloaded once, verified, and kept in the Keras cache.

A download is first verified, and then moved to the cache in a single atomic step. Any number of processes can start at the same
time. At worst, each of them downloads the same file.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
import warnings
from typing import Any

import keras

from keras_t2t.configs import token_grid
from keras_t2t.errors import CheckpointError, DownloadError
from keras_t2t.registry import MIRROR, PretrainedWeights
from keras_t2t.variants import VARIANTS
from keras_t2t.weights.loading import LoadReport, load_checkpoint
from keras_t2t.weights.matching import match
from keras_t2t.weights.reading import read_checkpoint

TIMEOUT = 30  # seconds to wait for the next bytes from the server
TEMPORARY = ".temporary-"  # prefix of folders for unfinished files
KEEP_TEMPORARY = 86_400  # seconds until a folder left behind by a killed process is removed


def load_pretrained(model: keras.Model, weights: PretrainedWeights) -> LoadReport:
    """Loads pretrained weights into a model.

    Args:
        model: Model with a head for the classes of `weights`, or without a head.
        weights: The pretrained weights. They are downloaded unless they ship with the package or are in the cache.

    Returns:
        A report of what was loaded.

    Raises:
        DownloadError: If the weights cannot be downloaded or cached, or if the download is not the published file.
        CheckpointError: If the weights do not fit the model.
    """
    return load_checkpoint(model, weights.path or fetch(weights))


def cache_folder() -> pathlib.Path:
    """Returns the folder for downloaded weights.

    This is `models/keras_t2t` in the folder given by the environment variable `KERAS_HOME`, which defaults to `~/.keras`.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(home).expanduser().absolute() / "models" / "keras_t2t"


def fetch(weights: PretrainedWeights) -> pathlib.Path:
    """Returns the path of a published file in the cache, downloading it first if necessary.

    Args:
        weights: Published weights.

    Returns:
        Path of the verified file.

    Raises:
        DownloadError: If the file cannot be downloaded or cached, or if the download is not the published file.
    """
    path, note = cache_folder() / weights.file, ""
    if path.exists():
        problem = _find_problem(weights, path)
        if problem is None:
            _record_digest(weights, path)
            return path
        note = f"\nThe file in the cache was not used: {problem}"
    try:
        _download_verified(weights, path)
    except DownloadError as error:
        raise DownloadError(f"{error}{note}") from error.__cause__
    except OSError as error:
        raise DownloadError(
            f"Cannot write {weights.file} to {path.parent}: {error}. Free some disk space, or set the environment variable "
            f"KERAS_HOME to another folder.{note}"
        ) from error
    return path


def _download_verified(weights, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_old_temporary_folders(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=TEMPORARY) as folder:
        temporary = pathlib.Path(folder, weights.file)
        _download(weights, temporary)
        if problem := _find_problem(weights, temporary):
            raise DownloadError(
                f"The file downloaded from {weights.url} is not the published one. Try again, or set the environment variable "
                f"{MIRROR} to the URL of another mirror. Details: {problem}"
            )
        _record_digest(weights, temporary)
        os.replace(temporary, path)


def _download(weights, path):
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=TIMEOUT)(weights.url, str(path), None)
    except (requests.RequestException, ValueError) as error:  # pooch raises `ValueError` for invalid numbers in the response
        raise DownloadError(
            f"The weights {weights.variant}:{weights.name} cannot be downloaded. If this machine is offline, download\n"
            f"  {weights.url}\non another one and copy the file to the folder\n  {cache_folder()}\n"
            f"or set the environment variable {MIRROR} to the URL of a mirror.\nCause: {error}"
        ) from error


def _remove_old_temporary_folders(parent):
    for path in parent.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):  # another process may remove it, too
            if time.time() - path.stat().st_mtime > KEEP_TEMPORARY:
                shutil.rmtree(path, ignore_errors=True)


def _find_problem(weights, path):
    """Returns why a file is not the published one, or `None` if it is."""
    size = path.stat().st_size
    if weights.size not in (None, size):
        return f"Its size is {size} bytes; expected {weights.size}."
    if weights.digest is not None:
        algorithm, expected = weights.digest.split(":")
        digest = _digest_of(path, algorithm)
        if not digest.startswith(expected):
            return f"Its {algorithm} digest is {digest}; expected {expected}."
        if weights.has_full_digest:
            return None
    record = _record_path(weights)
    if record.exists():
        digest, expected = _digest_of(path, "sha256"), record.read_text("utf-8").strip()
        if digest == expected:
            return None
        return (
            f"Its sha256 digest is {digest}; expected {expected}, which was recorded when the file was first used. If the "
            f"publisher has replaced the file, delete {record}."
        )
    return _find_mismatch(weights, path)


def _find_mismatch(weights, path):
    """Returns how the names and shapes in a file differ from those of the model, or `None` if they match."""
    config = VARIANTS[weights.variant].config
    grid: Any = token_grid(config.soft_splits, *weights.preprocessing.image_size)
    try:
        arrays = read_checkpoint(path).arrays
    except CheckpointError as error:
        return str(error).replace(str(path), weights.file)
    try:
        match(arrays, config, grid, classes=weights.classes)
    except CheckpointError as error:
        return f"Its names or shapes do not fit the model:\n{error}"
    return None


def _record_path(weights):
    return cache_folder() / f"{weights.file}.sha256"


def _record_digest(weights, path):
    """Records the digest of a file when it is first used, unless its full digest was published."""
    record = _record_path(weights)
    if weights.has_full_digest or record.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=record.parent, prefix=TEMPORARY) as folder:
            pathlib.Path(folder, "sha256").write_text(_digest_of(path, "sha256"), encoding="utf-8")
            os.replace(pathlib.Path(folder, "sha256"), record)
    except OSError as error:
        warnings.warn(
            f"Cannot record the digest of {weights.file}: {error}. The file is used, but later changes to it will go "
            "unnoticed.",
            stacklevel=5,
        )


def _digest_of(path, algorithm):
    import pooch  # takes 0.2 seconds to import

    return pooch.file_hash(str(path), algorithm)
