"""Decision regions: the class that a model predicts at each point of a plane."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from regioncount.reporting.plots.style import add_legend, empty_figure

# Seven of Okabe and Ito's colours, which are distinguishable with every kind of colour vision, and three more.
CLASS_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#BBBBBB",
    "#333333",
    "#882255",
)
MAX_LEGEND_ENTRIES = 24
MAX_NAME_LENGTH = 18


def decision_regions(
    grids: Sequence[np.ndarray],
    titles: Sequence[str],
    class_names: Sequence[str],
    anchors: Sequence[np.ndarray | None] | None = None,
) -> Figure:
    """Return a figure of decision regions, one panel per plane. A class has the same colour in all panels.

    Args:
        grids: The predicted labels (n, n) of each panel, with row 0 at the bottom; -1 is left blank.
        titles: The titles of the panels.
        class_names: The names of the classes.
        anchors: The points (k, 2) to mark in each panel, as (x, y) in grid steps: the images that span the plane.

    Returns:
        The figure.
    """
    if not len(grids):
        return empty_figure()
    present, areas = np.unique(np.concatenate([np.ravel(grid) for grid in grids]), return_counts=True)
    present, areas = present[present >= 0], areas[present >= 0]
    colours = class_colours(present)
    palette = ListedColormap([colours[label] for label in present] or ["white"])
    named = np.sort(present[np.argsort(-areas, kind="stable")][:MAX_LEGEND_ENTRIES])
    height = 4.0 + 0.3 * max(title.count("\n") for title in titles)
    figure = Figure(figsize=(max(3.6 * len(grids), 5.2), height), layout="constrained")
    for position, axes in enumerate(figure.subplots(1, len(grids), squeeze=False)[0]):
        grid = np.asarray(grids[position])
        ranks = np.ma.masked_where(grid < 0, np.searchsorted(present, grid))
        axes.imshow(ranks, cmap=palette, vmin=-0.5, vmax=len(present) - 0.5, origin="lower", interpolation="nearest")
        axes.set_title(titles[position], fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_anchor("S")  # below the title: the layout is computed before the panel becomes a square
        axes.spines[:].set_color("0.7")
        if anchors is not None and anchors[position] is not None:
            x, y = np.asarray(anchors[position], dtype=float).T
            dots = {"marker": "o", "markersize": 9, "color": "white", "markeredgecolor": "black", "clip_on": False}
            axes.plot(x, y, linestyle="none", **dots)
    handles = [Patch(facecolor=colours[label], edgecolor="0.4", label=_class_name(label, class_names)) for label in named]
    if len(present) > len(named):
        handles.append(Patch(facecolor="none", label=f"and {len(present) - len(named)} more"))
    add_legend(figure, handles)
    return figure


def class_colours(present: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """Return a colour for each class.

    Each of the first ten classes has its own colour. If there are more, colours are assigned in the order of the labels that
    occur, and repeated in lighter and darker shades.

    Args:
        present: The labels that occur, ascending, (k,).

    Returns:
        RGB values from 0 to 1, by label.
    """
    few_classes = len(present) == 0 or present.max() < len(CLASS_COLOURS)
    colours = {}
    for rank, label in enumerate(present):
        shade, position = divmod(int(label) if few_classes else rank, len(CLASS_COLOURS))
        colour = np.array(to_rgb(CLASS_COLOURS[position]))
        red, green, blue = (colour, 0.5 + 0.5 * colour, 0.6 * colour)[shade % 3]
        colours[label] = (red, green, blue)
    return colours


def _class_name(label: int, class_names: Sequence[str]) -> str:
    name = str(class_names[label]) if label < len(class_names) else f"class {label}"
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1].rstrip()}…"
