"""The quantities of the theorem on two-layer networks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regioncount.reporting.formatting import value_text
from regioncount.reporting.plots.style import (
    LINE_STYLES,
    MARKERS,
    ORDERED_COLOURS,
    add_colour_bar,
    add_legend,
    set_up_axes,
)
from regioncount.reporting.scales import position_on_scale

# The labels of the panels and the columns of the measure `theorem` that they show.
PANELS = {
    "Hessian eigenvalue at the end": ["hessian_eigenvalue"],
    "neurons active at an image": ["active_neurons"],
    "neurons that change on a segment": ["activation_changes"],
    "regions on a segment": ["region_count_all_pairs"],
    "bound, and changes (dashed)": ["bound", "activation_changes"],
}


def theorem(runs: pd.DataFrame, trajectories: Sequence[tuple[float, np.ndarray, np.ndarray]]) -> Figure:
    """Return a figure of the theorem's quantities over learning rates, and of the Hessian eigenvalue during training.

    There is a line per width, with error bars of one standard error over seeds.

    Args:
        runs: The columns of the measure `theorem`, one row per run.
        trajectories: The learning rate, steps (n,) and largest Hessian eigenvalues (n,) of single runs.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    rates = pd.Series(sorted(runs["theorem_learning_rate"].unique()))
    scale = position_on_scale(rates)
    axes = set_up_axes(panels[0], "step of gradient descent", "largest Hessian eigenvalue")
    for rate, steps, eigenvalues in trajectories:
        colour = ORDERED_COLOURS(scale[rate])
        axes.plot(steps + 1, eigenvalues, color=colour, linewidth=1.7)
        axes.axhline(2 / rate, color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
    last = trajectories[-1][2][trajectories[-1][2] > 0]
    highest = max(last.max(), *(eigenvalues.max() for _, _, eigenvalues in trajectories))
    axes.set(xscale="log", yscale="log", ylim=(last.min() / 2, highest * 3))
    axes.set_title("through training; dashed: 2 / learning rate", fontsize=10)
    handles = []
    for axes, (label, columns) in zip(panels[1:], PANELS.items(), strict=True):
        set_up_axes(axes, "learning rate", label)
        for (width, rows), marker in zip(runs.groupby("theorem_width"), MARKERS, strict=False):
            for column, style in zip(columns, LINE_STYLES, strict=False):
                points = rows.groupby("theorem_learning_rate")[f"theorem_{column}"].agg(["mean", "sem"])
                line = axes.errorbar(
                    points.index, points["mean"], points["sem"], marker=marker, color="0.25", linestyle=style, linewidth=1.2
                )
            if axes is panels[1]:
                handles.append(line)
                line.set_label(f"width {value_text(width)}")
        axes.set(xscale="log", yscale="linear" if columns == ["region_count_all_pairs"] else "log")
    panels[1].plot(rates, 2 / rates, color="0.6", linestyle=LINE_STYLES[2], linewidth=1)
    panels[1].text(rates.iloc[0], 2 / rates.iloc[0], " 2 / learning rate", color="0.4", fontsize=9, va="top")
    add_colour_bar(figure, [panels[0]], "learning_rate", scale)
    add_legend(figure, handles)
    return figure
