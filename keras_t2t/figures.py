"""What all pictures share: the guard for matplotlib and colors that people with color blindness can tell apart."""

from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""From Okabe and Ito, "Color Universal Design", 2008."""


def new_figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure, which needs no display.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Pictures need matplotlib: pip install "keras-t2t[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained")
