"""Plots of analysis results, saved as PNG files in colorblind-friendly colors."""

import os
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from keras_t2t.analysis.head_redundancy import TITLES, Comparison
from keras_t2t.figures import MARKERS, PALETTE, new_figure

NEARLY_UNIFORM = 0.2
"""A map is nearly uniform if its values differ by less than this fraction of the largest one."""


def draw_overlays(
    image: np.ndarray, maps: Mapping[str, np.ndarray], path: str | os.PathLike, title: str = "", columns: int | None = None
) -> None:
    """Draws an image, followed by the image with each map on top.

    The colors of each map span its own range, which is printed below it. Maps whose values differ by less than a fifth of the
    largest one are marked as nearly uniform, since their colors exaggerate small differences.

    Args:
        image: Image of shape `(H, W, 3)` or `(H, W, 1)`, in [0, 255].
        maps: Mapping from titles to maps `(H, W)`, as returned by `to_pixels`.
        path: Path of the PNG file.
        title: Title of the figure.
        columns: Number of panels per row. By default, 3 to 5, whichever fills the last row best.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    image = np.asarray(image, "float32") / 255
    gray, panels = image.mean(-1), 1 + len(maps)
    columns = min(columns or _columns(panels), panels)
    rows, aspect = -(-panels // columns), image.shape[0] / image.shape[1]
    titles = [textwrap.fill(label, 30) for label in ("image", *maps)]
    height = 2.4 * aspect + 0.35 + 0.17 * (1 + max(label.count("\n") for label in titles))
    figure = new_figure(2.4 * columns + 0.7, height * rows + (0.4 if title else 0))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.remove()
    for ax, label in zip(axes, titles, strict=False):
        _hide_frame(ax)
        ax.set_title(label, fontsize=10)
    axes[0].imshow(image if image.shape[-1] == 3 else gray, cmap="gray", vmin=0, vmax=1)
    for ax, values in zip(axes[1:], maps.values(), strict=False):
        ax.imshow(gray, cmap="gray", vmin=0, vmax=1)
        overlay = ax.imshow(values, cmap="viridis", alpha=0.65)
        ax.set_xlabel(_range_note(values), fontsize=8)
    if maps:
        scale = figure.colorbar(overlay, ax=list(axes[:panels]), shrink=0.6, fraction=0.05, aspect=30)
        scale.set_ticks(scale.ax.get_ylim(), labels=["lowest", "highest"], fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def _columns(panels):
    """Chooses a number of columns that leaves no panel alone in the last row, and as few empty cells as possible."""
    return min((4, 5, 3), key=lambda columns: (panels % columns == 1, -panels % columns))


def _range_note(values):
    low, high = np.min(values), np.max(values)
    uniform = high - low < NEARLY_UNIFORM * max(abs(low), abs(high)) or low == high
    return f"{low:.3g} to {high:.3g}" + (", nearly uniform" if uniform else "")


def _hide_frame(ax):
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def draw_features(
    image: np.ndarray, maps: Mapping[str, np.ndarray], path: str | os.PathLike, title: str = "", channels: int = 6
) -> None:
    """Draws an image next to the channels with the highest variance of each feature map.

    Args:
        image: Image of shape `(H, W, 3)` or `(H, W, 1)`, in [0, 255].
        maps: Mapping from names to feature maps `(h, w, C)` of a single image, such as one image of what `feature_maps`
            returns.
        path: Path of the PNG file.
        title: Title of the figure.
        channels: Number of channels per feature map.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    image = np.asarray(image, "float32") / 255
    aspect = image.shape[0] / image.shape[1]
    figure = new_figure(1.7 * (channels + 1), (1.7 * aspect + 0.25) * len(maps) + (0.4 if title else 0))
    axes = figure.subplots(len(maps), channels + 1, squeeze=False)
    for row, (name, values) in zip(axes, maps.items(), strict=True):
        for ax in row:
            _hide_frame(ax)
        row[0].set_ylabel(f"{name}\n{values.shape[0]}x{values.shape[1]}", fontsize=10)
        row[0].imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
        for ax, channel in zip(row[1:], np.argsort(-values.var((0, 1)), kind="stable"), strict=False):
            ax.imshow(values[..., channel], cmap="gray", aspect=aspect * values.shape[1] / values.shape[0])
            ax.set_title(f"channel {channel}", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def draw_comparison(comparisons: Sequence[Comparison], path: str | os.PathLike) -> None:
    """Plots the redundancy of several models: similarity and attention metrics over depth, and CKA between blocks.

    Args:
        comparisons: Results of `compare`, at most six.
        path: Path of the PNG file.

    Raises:
        ValueError: If there are more than six models.
        ImportError: If matplotlib is not installed.
    """
    if len(comparisons) > len(PALETTE):
        raise ValueError(f"Expected at most {len(PALETTE)} models; received: {len(comparisons)} models")
    figure = new_figure(12.5, 6.8)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    for ax, name in zip(top.subplots(1, 4), ("cosine", "divergence", "entropy", "distance"), strict=True):
        for comparison, color, marker in zip(comparisons, PALETTE, MARKERS, strict=False):
            values = comparison.redundancy.by_block()[name]
            depth = np.linspace(0, 1, len(values)) if len(values) > 1 else [0.5]
            ax.plot(depth, values, color=color, marker=marker, markersize=4, label=comparison.name)
        ax.set_title(textwrap.fill(TITLES[name], 27), fontsize=10)
        ax.set_xlabel("first block to last block")
        ax.set_xticks([])
        ax.grid(alpha=0.3)
    top.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    axes = bottom.subplots(1, len(comparisons), squeeze=False)[0]
    for ax, comparison in zip(axes, comparisons, strict=True):
        heatmap = ax.imshow(comparison.redundancy.cka, cmap="cividis", vmin=0, vmax=1)
        ax.set_title(textwrap.fill(comparison.name, 24), fontsize=10 if len(comparisons) < 4 else 8)
        ax.set(xlabel="block", ylabel="block")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.get_major_locator().set_params(integer=True)
    bottom.colorbar(heatmap, ax=list(axes), label="linear CKA of block outputs")
    figure.savefig(path, dpi=110)


def draw_growth(
    sizes: Sequence[int],
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    latencies: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    """Plots cost versus image size.

    Args:
        sizes: Heights of the square images in pixels.
        counts: Mapping from at most six labels to the multiply-accumulates and the largest output, as returned by `growth`.
        path: Path of the PNG file.
        latencies: Mapping from the same labels to latency in seconds by image size, or `None`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = new_figure(12 if latencies else 8.2, 3.8)
    axes = figure.subplots(1, 3 if latencies else 2)
    for (label, (macs, largest)), color, marker in zip(counts.items(), PALETTE, MARKERS, strict=False):
        style = {"color": color, "marker": marker, "markersize": 4, "label": label}
        axes[0].plot(sizes, np.asarray(macs) / 1e9, **style)
        axes[1].plot(sizes, 4 * np.asarray(largest) / 2**20, **style)
        if latencies and latencies.get(label):
            axes[2].plot(*zip(*sorted(latencies[label].items()), strict=True), **style)
    titles = ("multiply-accumulates (billions)", "largest activation, float32 (MiB)", "latency, one image (s)")
    for ax, title in zip(axes, titles, strict=False):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, [str(size) for size in sizes], rotation=60)
        ax.minorticks_off()
        ax.set_xlabel("image height and width (pixels)")
        ax.set_title(title, fontsize=10)
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
