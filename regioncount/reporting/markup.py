"""Write tables in Markdown and LaTeX."""

import unicodedata

from regioncount.reporting.frames import keys
from regioncount.reporting.tables import Table

UNDEFINED = "undefined: "

# The packages and the command that the tables use. \fitted scales a table down if it is wider than the text.
LATEX_PREAMBLE = r"""% \usepackage{booktabs,graphicx}
\providecommand{\fitted}[1]{\sbox0{#1}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}
"""

GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
LETTERS = "ss ae AE o O aa AA l L oe OE i"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψω", GREEK.split(), strict=True)},
    **{letter: rf"\{name}{{}}" for letter, name in zip("ßæÆøØåÅłŁœŒı", LETTERS.split(), strict=True)},
}
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
ACCENTS |= {"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}


def markdown(table: Table) -> str:
    """Return a table in Markdown below its caption. Numbers are aligned to the right."""
    titles = [escape_markdown(table.titles[column]) for column in keys(table.cells)]
    alignment = ["---:" if column in table.numeric else "---" for column in table.cells]
    rows = [[escape_markdown(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    lines = [f"| {' | '.join(row)} |" for row in (titles, alignment, *rows)]
    return "\n".join([f"**{escape_markdown(table.caption)}.**", "", *lines, ""])


def latex(table: Table, label: str) -> str:
    r"""Return a table in LaTeX, with its caption and \label{tab:label}.

    It needs `LATEX_PREAMBLE`. The reasons why statistics are undefined are in notes below the table.
    """
    notes: dict[str, int] = {}

    def cell_text(cell: str) -> str:
        if not cell.startswith(UNDEFINED):
            return escape_latex(cell)
        number = notes.setdefault(escape_latex(cell.removeprefix(UNDEFINED)), len(notes) + 1)
        return f"undefined$^{{{number}}}$"

    titles = [escape_latex(table.titles[column]) for column in keys(table.cells)]
    rows = [[cell_text(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    alignment = "".join("r" if column in table.numeric else "l" for column in table.cells)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}.}}",
        rf"\label{{tab:{label}}}",
        rf"\fitted{{\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _latex_row(titles),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par\smallskip{{\footnotesize $^{{{number}}}$ {reason}}}" for reason, number in notes.items()),
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, as on GitHub, and put it on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_|$~":
        text = text.replace(special, f"\\{special}")
    return text.replace("](", "]\\(")


def escape_latex(text: str) -> str:
    """Escape text for pdflatex and put it on one line. Letters and symbols that it does not have are written as U+XXXX."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    # Two hyphens would become a dash.
    pairs = zip(f" {text}", text, strict=False)
    return "".join("{}-" if pair == ("-", "-") else _latex_letter(pair[1]) for pair in pairs)


def _latex_row(cells: list[str]) -> str:
    """Return a row. The line break before it would read a bracket or an asterisk at its beginning as an option."""
    first = "{}" if cells[0].startswith(("[", "*")) else ""
    return rf"{first}{' & '.join(cells)} \\"


def _latex_letter(letter: str) -> str:
    if letter in LATEX:
        return LATEX[letter]
    if letter.isascii():
        return letter
    base, *marks = unicodedata.normalize("NFD", letter)
    if len(marks) == 1 and marks[0] in ACCENTS and base.isascii():
        dotless = base.replace("i", r"\i{}").replace("j", r"\j{}") if marks[0] != "\u0327" else base
        return f"\\{ACCENTS[marks[0]]}{{{dotless}}}"
    return f"U+{ord(letter):04X}"
