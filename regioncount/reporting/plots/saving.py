"""Write figures to disk."""

import io
import warnings
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from regioncount.errors import InputError
from regioncount.runs import files


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, atomically. Identical data gives identical bytes.

    Args:
        figure: The figure.
        path: The path of the file. Its directory is created if necessary.

    Raises:
        InputError: The path does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: figures are PNG files; choose a name that ends in .png")
    _show_dollar_signs(figure)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(content, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content.getvalue())


def _show_dollar_signs(figure: Figure) -> None:
    """Show dollar signs in names and options as they are: matplotlib reads a pair of them as mathematical notation."""
    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)  # the labels of a logarithmic axis are such notation
        for label in axis.get_ticklabels(which="both")
    }
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in powers:
            text.set_parse_math(False)
