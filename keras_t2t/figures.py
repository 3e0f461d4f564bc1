"""Helpers shared by all plots: a check for matplotlib, and a color palette that is safe for color-blind readers."""

from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colors from Okabe and Ito, "Color Universal Design", 2008."""


def new_figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure that does not need a display.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Plots need matplotlib: pip install "keras-t2t[plots]"') from error
    return Figure(figsize=(width, height), layout="constrained")
