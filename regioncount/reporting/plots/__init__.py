"""Figures for print, drawn with matplotlib from `figure_data`. Drawing needs no display and works in any thread."""

from regioncount.reporting.plots.grids import heat_maps
from regioncount.reporting.plots.line_plots import against_measuring, lines, measures_through_training
from regioncount.reporting.plots.planes import CLASS_COLOURS, decision_regions
from regioncount.reporting.plots.saving import FORMATS, save
from regioncount.reporting.plots.scatters import count_against_gap, measures_against_gap, series
from regioncount.reporting.plots.theory import theorem

__all__ = [
    "CLASS_COLOURS",
    "FORMATS",
    "against_measuring",
    "count_against_gap",
    "decision_regions",
    "heat_maps",
    "lines",
    "measures_against_gap",
    "measures_through_training",
    "save",
    "series",
    "theorem",
]
