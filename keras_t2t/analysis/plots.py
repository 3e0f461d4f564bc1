"""Pictures of what the other files of this folder compute. PNG files, in colors that the color-blind can tell apart."""

import textwrap

import numpy as np

from keras_t2t.figures import PALETTE, new_figure

MARKERS = "osD^vP"


def draw_overlays(image, maps, path, title: str = "", columns: int = 4):
    """Draws an image, and maps laid over it.

    Args:
        image: (H, W, 3) or (H, W, 1) in [0, 255].
        maps: mapping from titles to maps (H, W), as `to_pixels` returns them; each has a scale of its own, from its least to
            its greatest value.
        path: of the PNG.
        title: above all of them.
        columns: panels in a row.
    """
    image = np.asarray(image, "float32") / 255
    gray = image.mean(-1)
    columns = min(columns, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    panel = image.shape[0] / image.shape[1]
    figure = new_figure(2.4 * columns, (2.4 * panel + 0.35) * rows + (0.4 if title else 0))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(image if image.shape[-1] == 3 else gray, cmap="gray", vmin=0, vmax=1)
    axes[0].set_title("image", fontsize=10)
    for ax, (label, values) in zip(axes[1:], maps.items(), strict=False):
        ax.imshow(gray, cmap="gray", vmin=0, vmax=1)
        ax.imshow(values, cmap="viridis", alpha=0.65)
        ax.set_title(textwrap.fill(label, 30), fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def draw_features(image, maps, path, title: str = "", channels: int = 6):
    """Draws an image, and of each map the channels that vary most over it.

    Args:
        image: (H, W, 3) or (H, W, 1) in [0, 255].
        maps: mapping from names to maps (h, w, C), as one image of `feature_maps`.
        path: of the PNG.
        title: above all of them.
        channels: how many of each map.
    """
    image = np.asarray(image, "float32") / 255
    panel = image.shape[0] / image.shape[1]
    figure = new_figure(1.7 * (channels + 1), (1.7 * panel + 0.25) * len(maps) + (0.4 if title else 0))
    axes = figure.subplots(len(maps), channels + 1, squeeze=False)
    for row, (name, values) in zip(axes, maps.items(), strict=True):
        for ax in row:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(f"{name}\n{values.shape[0]}x{values.shape[1]}", fontsize=10)
        row[0].imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
        for ax, channel in zip(row[1:], np.argsort(-values.var((0, 1)), kind="stable"), strict=False):
            ax.imshow(values[..., channel], cmap="gray", aspect=panel * values.shape[1] / values.shape[0])
            ax.set_title(f"channel {channel}", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def draw_comparison(comparisons, path):
    """Draws the redundancy of models side by side: figures over the depth, and CKA between the blocks.

    Args:
        comparisons: of `compare`, at most six.
        path: of the PNG.

    Raises:
        ValueError: for more than six.
    """
    if len(comparisons) > len(PALETTE):
        raise ValueError(f"Expected at most {len(PALETTE)} models in one picture; received {len(comparisons)}")
    panels = {
        "cosine": "cosine between heads",
        "divergence": "Jensen-Shannon divergence\nbetween heads (bits)",
        "entropy": "entropy of attention (bits)",
        "distance": "attention distance (pixels)",
    }
    figure = new_figure(12.5, 6.8)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    for ax, (name, title) in zip(above.subplots(1, 4), panels.items(), strict=True):
        for comparison, color, marker in zip(comparisons, PALETTE, MARKERS, strict=False):
            values = comparison.redundancy.by_block()[name]
            depth = np.linspace(0, 1, len(values)) if len(values) > 1 else [0.5]
            ax.plot(depth, values, color=color, marker=marker, markersize=4, label=comparison.name)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("first block to last")
        ax.set_xticks([])
        ax.grid(alpha=0.3)
    above.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    axes = below.subplots(1, len(comparisons), squeeze=False)[0]
    for ax, comparison in zip(axes, comparisons, strict=True):
        shown = ax.imshow(comparison.redundancy.cka, cmap="cividis", vmin=0, vmax=1)
        ax.set_title(textwrap.fill(comparison.name, 24), fontsize=10 if len(comparisons) < 4 else 8)
        ax.set(xlabel="block", ylabel="block")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.get_major_locator().set_params(integer=True)
    below.colorbar(shown, ax=list(axes), label="linear CKA between the blocks' results")
    figure.savefig(path, dpi=110)


def draw_growth(sizes, counts, path, latencies=None):
    """Draws how cost grows with the size of images.

    Args:
        sizes: heights of the square images, in pixels.
        counts: mapping from labels to (multiply-accumulates, largest result), as `growth` returns them, at most six.
        path: of the PNG.
        latencies: None, or a mapping from the same labels to mappings from sizes to seconds.
    """
    figure = new_figure(12 if latencies else 8.2, 3.8)
    axes = figure.subplots(1, 3 if latencies else 2)
    for (label, (macs, largest)), color, marker in zip(counts.items(), PALETTE, MARKERS, strict=False):
        style = {"color": color, "marker": marker, "markersize": 4, "label": label}
        axes[0].plot(sizes, np.asarray(macs) / 1e9, **style)
        axes[1].plot(sizes, 4 * np.asarray(largest) / 2**20, **style)
        if latencies and latencies.get(label):
            axes[2].plot(*zip(*sorted(latencies[label].items()), strict=True), **style)
    titles = ("multiply-accumulates (G)", "largest matrix, float32 (MiB)", "measured time, one image (s)")
    for ax, title in zip(axes, titles, strict=False):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, [str(size) for size in sizes], rotation=60)
        ax.minorticks_off()
        ax.set_xlabel("height and width of the image (pixels)")
        ax.set_title(title, fontsize=10)
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
