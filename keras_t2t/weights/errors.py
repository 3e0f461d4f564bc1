"""What can go wrong between a file and a model."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class DownloadError(OSError):
    """Published weights cannot be fetched, are not what was published, or cannot be kept."""
