"""The building blocks of pages: documents, tables and figures, rendered with Jinja2 from templates/.

A page is self-contained: styles, scripts, figures and pictures are embedded. Names, options and messages are escaped.
The page's security policy allows only scripts whose hashes it lists.
"""

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from regioncount.reporting.frames import keys
from regioncount.reporting.tables import Table
from regioncount.runs import files

FOLDER = Path(__file__).parent
MAX_PICTURE = 16 * 2**20  # bytes
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_ROWS = 500  # rows of a table shown at first, as in assets/report.css

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["max_rows"] = MAX_ROWS


@dataclass(frozen=True)
class PageColumn:
    """The heading of a table's column."""

    title: str
    kind: str = ""
    """The style of the column: "number", "long" or ""."""


@dataclass(frozen=True)
class PageTable:
    """A table on a page."""

    identifier: str
    caption: str
    columns: Sequence[PageColumn]
    rows: Sequence[Sequence[str]]
    """Text, which is escaped, or Markup."""
    marked: Collection[int] = ()
    """The indices of highlighted rows."""


@dataclass(frozen=True)
class PageChart:
    """An interactive figure."""

    json: str
    height: int
    description: str
    caption: str
    file: str | None
    """The PNG file beside the page that is shown if scripts are disabled."""


@dataclass(frozen=True)
class PagePicture:
    """An embedded PNG file."""

    content: str
    description: str
    caption: str
    wide: bool
    """Whether the picture scrolls sideways on a narrow screen."""


def render(template: str, **values: Any) -> Markup:
    """Render a template of templates/ with values, which are escaped."""
    return Markup(_ENVIRONMENT.get_template(template).render(**values))


def document(
    title: str,
    heading: str,
    subtitle: str,
    sections: Sequence[tuple[str, Markup]],
    *,
    headline: str = "",
    scripts: Sequence[str] = (),
) -> str:
    """Return an HTML page.

    Args:
        title: The title of the browser window.
        heading: The heading of the page.
        subtitle: The line below the heading.
        sections: The heading and the content of each section.
        headline: The main result.
        scripts: Scripts to run before report.js.
    """
    # A browser turns line ends into newlines before it computes the hash.
    scripts = [script.replace("\r\n", "\n").replace("\r", "\n") for script in (*scripts, _asset("report.js"))]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return render(
        "document.html",
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data: blob:; script-src {allowed}",
        style=_asset("report.css"),
        title=title,
        heading=heading,
        subtitle=subtitle,
        headline=headline,
        sections=sections,
        scripts=scripts,
    )


def page_table(table: Table, identifier: str, marked: Collection[int] = ()) -> PageTable | None:
    """Return a table as a `PageTable`; None if it has no rows."""
    if table.cells.empty:
        return None
    columns = [PageColumn(table.titles[key], "number" if key in table.numeric else "") for key in keys(table.cells)]
    rows = [[str(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    return PageTable(identifier, table.caption, columns, rows, marked)


def page_chart(figure: go.Figure, height: int, description: str, caption: str, path: Path | None = None) -> PageChart:
    """Return a plotly figure as a `PageChart`.

    Args:
        figure: The figure.
        height: Its height in pixels.
        description: A description of the figure for screen readers.
        caption: The caption; "" for none.
        path: A PNG file of the figure beside the page. It need not exist.
    """
    content = (figure.to_json() or "").replace("<", "\\u003c")  # so that no text in it can close the script element
    file = path.name if path is not None and path.is_file() and not path.is_symlink() else None
    return PageChart(content, height, description, caption, file)


def page_picture(path: Path, description: str, caption: str, *, wide: bool = False) -> PagePicture | None:
    """Return a PNG file as a `PagePicture`; None if it is missing, a link, no PNG file or larger than `MAX_PICTURE`."""
    try:
        content = files.read(path, MAX_PICTURE)
    except files.Damaged:
        return None
    if not content.startswith(PNG_SIGNATURE):
        return None
    return PagePicture(base64.b64encode(content).decode(), description, caption, wide)


def _asset(name: str) -> str:
    return (FOLDER / "assets" / name).read_text(encoding="utf-8")
