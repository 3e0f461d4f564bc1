"""Helpers shared by all plots: a check for matplotlib, and colors and markers that are safe for color-blind readers."""

from typing import Any

from keras_t2t.extras import import_extra

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colors from Okabe and Ito, "Color Universal Design", 2008."""
MARKERS = "osD^vP"
"""Marker of each line, in the same order."""


def new_figure(width: float, height: float) -> Any:
    """Returns an empty matplotlib figure that does not need a display.

    Args:
        width: Width in inches.
        height: Height in inches.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = import_extra("matplotlib.figure", "Plots need matplotlib", "plots")
    return figure.Figure(figsize=(width, height), layout="constrained")
