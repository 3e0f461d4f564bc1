"""Limits on the amount of data that a file may declare, which are checked before it is read."""

MAX_EXPANSION = 10


def check_expansion(size: int, file_size: int) -> None:
    """Checks that a file does not declare far more bytes than it contains, because weights can hardly be compressed.

    Args:
        size: Number of bytes that the file declares.
        file_size: Number of bytes of the file.

    Raises:
        ValueError: If the file declares too many bytes.
    """
    if size > MAX_EXPANSION * file_size + 2**20:
        raise ValueError(f"it declares {size} bytes in a file of {file_size} bytes")
