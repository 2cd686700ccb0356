"""Write tables in Markdown and LaTeX."""

from regioncount.reporting.frames import keys
from regioncount.reporting.tables import Table

MAX_UNSCALED_COLUMNS = 6  # tables with more columns are scaled to the line width

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def markdown(table: Table) -> str:
    """Return a table in Markdown below its caption. Numbers are aligned to the right."""
    titles = [escape_markdown(table.titles[column]) for column in keys(table.cells)]
    alignment = ["---:" if column in table.numeric else "---" for column in table.cells]
    rows = [[escape_markdown(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    lines = [f"| {' | '.join(row)} |" for row in (titles, alignment, *rows)]
    return "\n".join([f"**{escape_markdown(table.caption)}.**", "", *lines, ""])


def latex(table: Table, label: str) -> str:
    r"""Return a table in LaTeX (booktabs), with its caption and \label{tab:label}."""
    escaped = table.cells.map(escape_latex).set_axis([escape_latex(table.titles[c]) for c in keys(table.cells)], axis=1)
    text = escaped.style.hide(axis="index").to_latex(
        column_format="".join("r" if column in table.numeric else "l" for column in table.cells),
        position_float="centering",
        hrules=True,
        caption=f"{escape_latex(table.caption)}.",
        label=f"tab:{label}",
    )
    if len(table.cells.columns) > MAX_UNSCALED_COLUMNS:
        text = text.replace(r"\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
        text = text.replace(r"\end{tabular}", r"\end{tabular}}")
    return text


def escape_markdown(text: str) -> str:
    """Escape text for Markdown and put it on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_|":
        text = text.replace(special, f"\\{special}")
    return text.replace("](", "]\\(")


def escape_latex(text: str) -> str:
    """Escape text for LaTeX and put it on one line."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))
