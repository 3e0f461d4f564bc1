"""What a file may declare before it is read."""

MAX_EXPANSION = 10


def check_expansion(size: int, file_size: int) -> None:
    """Raises `ValueError` if a file declares far more bytes than it holds: weights hardly compress."""
    if size > MAX_EXPANSION * file_size + 2**20:
        raise ValueError(f"it declares {size} bytes in a file of {file_size}")
