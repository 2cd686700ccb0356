"""Write figures to disk."""

import io
from pathlib import Path

from matplotlib.figure import Figure

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
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content.getvalue())
