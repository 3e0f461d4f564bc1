"""The exceptions that this package defines.

- `ValueError`
    - `CheckpointError`
    - `DataError`
- `OSError`
    - `DownloadError`
- `RuntimeError`
    - `ExportError`
    - `TrainingError`
"""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class DataError(ValueError):
    """The data cannot be used for training or evaluation."""


class DownloadError(OSError):
    """Pretrained weights cannot be downloaded or cached, or the download is not the published file."""


class ExportError(RuntimeError):
    """An exported file failed its checks. No file is left behind."""


class TrainingError(RuntimeError):
    """Training cannot continue."""
