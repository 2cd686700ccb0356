"""Write figures to disk."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from regioncount.errors import InputError
from regioncount.runs import files

# What would differ between two files of the same figure, or names the program, is left out.
METADATA = {".png": {"Software": None}, ".pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
FORMATS = tuple(METADATA)
TRUETYPE = 42  # the fonts of a PDF file are embedded as text that can be edited and searched, as publishers require


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG or a PDF file, atomically. Identical data gives identical bytes.

    Args:
        figure: The figure.
        path: The path of the file; its ending selects the format. Its directory is created if necessary.

    Raises:
        InputError: The path ends in neither .png nor .pdf.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: figures are PNG or PDF files; choose a name that ends in .png or .pdf")
    _show_dollar_signs(figure)
    content = io.BytesIO()
    with warnings.catch_warnings(), _truetype_fonts():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(content, format=suffix[1:], dpi=150, facecolor="white", metadata=METADATA[suffix])
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content.getvalue())


_fonttype = threading.Lock()


@contextmanager
def _truetype_fonts() -> Iterator[None]:
    """Embed TrueType fonts in PDF files inside the block. Matplotlib reads this from its global settings."""
    with _fonttype:
        before = matplotlib.rcParams["pdf.fonttype"]
        matplotlib.rcParams["pdf.fonttype"] = TRUETYPE
        try:
            yield
        finally:
            matplotlib.rcParams["pdf.fonttype"] = before


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
