"""The report of a sweep as one page of HTML, and the page that lists all sweeps.

A page needs no other file and no network: styles, scripts, figures and pictures stand in it. Whatever comes from names,
options or messages is escaped; no script runs but the two whose hashes the page's security policy has.
"""

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from regioncount.analysis import FITTED_ACCURACY
from regioncount.config import RunConfig
from regioncount.reporting import tables
from regioncount.reporting.collect import Group, Sweep, counts_in, groups, heat_map_measures, region_measures
from regioncount.reporting.columns import column_label, duration, value_text
from regioncount.reporting.tables import Table, column_title

ASSETS = Path(__file__).parent / "assets"
FILES = [
    "runs.csv",
    "configurations.csv",
    "correlations.csv",
    "ranking.csv",
    "comparison.csv",
    "early.csv",
    "regression.csv",
]
FILES += ["region_counts.csv", "tables.md", "tables.tex"]
MOST_ROWS = 500  # of a table are shown at first (assets/report.css)


def build(sweep: Sweep) -> str:
    """The page of a sweep. Pictures that lie in its directory are embedded; those that do not are left out."""
    from plotly.offline import get_plotlyjs

    found = groups(sweep.runs, sweep.plan)
    titles = [group.short for group in found] if len(found) > 1 else ["Results"] * len(found)
    sections = [("What was run", _what_was_run(sweep))]
    if sweep.runs.groupby(["dataset", "model", *sweep.plan.measuring_columns]).ngroups > 1:
        sections.append(("Overview", _table(tables.overview(sweep), "overview")))
    if len(sweep.comparison):
        sections.append(("Beside the paper", _table(tables.comparison(sweep), "comparison")))
    for number, (title, group) in enumerate(zip(titles, found, strict=True), 1):
        sections.append((title, _group(sweep, group, number)))
    sections += [("Every run", _every_run(sweep)), ("How to read this", _notes())]
    name, what = sweep.plan.name, " · ".join([tables.ran_on(sweep), *_names(sweep, "model"), date(sweep)])
    header = f'<p class="subtitle">{escape(what)}</p>\n<p class="headline">{escape(tables.headline(sweep))}</p>'
    scripts = [get_plotlyjs()] if any('class="plot"' in body for _, body in sections) else []
    return _document(f"{name}: region counts and generalization", name, header, sections, scripts)


def summary(sweep: Sweep) -> dict:
    """What the list of sweeps says of one."""
    return {
        "name": sweep.plan.name,
        "date": date(sweep),
        "datasets": _names(sweep, "dataset"),
        "networks": _names(sweep, "model"),
        "runs": len(sweep.runs),
        "finished": int((sweep.runs["status"] == "finished").sum()),
        "headline": tables.headline(sweep),
    }


def build_index(summaries: Mapping[str, Mapping | None]) -> str:
    """The page that lists sweeps: by the name of its directory, what `summary` said of a sweep, or None without a report."""
    rows = []
    ordered = sorted(summaries.items(), key=lambda item: (item[1] or {}).get("date", ""), reverse=True)
    for directory, told in ordered:
        if told is None:
            rows.append([escape(directory), *[tables.DASH] * 4, "no report yet: run the sweep again"])
            continue
        link = f'<a href="{quote(directory)}/report.html">{escape(told["name"])}</a>'
        names = [escape(", ".join(told[key])) for key in ("datasets", "networks")]
        rows.append([link, escape(told["date"]), *names, f"{told['finished']} of {told['runs']}", escape(told["headline"])])
    heads = ["sweep", "date", "data", "networks", "runs finished", "what it found"]
    table = _render("sweeps", "Sweeps, the latest first", heads, rows, numeric=("runs finished",), long=("what it found",))
    return _document(
        "Sweeps",
        "regioncount",
        '<p class="subtitle">Region counts and generalization</p>',
        [("All sweeps", _filter("sweeps", "resnet18 or data=digits") + table)],
        [],
    )


def date(sweep: Sweep) -> str:
    """The day the last run was trained, or where none was, the sweep planned."""
    dates = sweep.environments["date"].dropna() if "date" in sweep.environments else []
    return max(map(str, dates), default=str(sweep.plan.environment.get("date", "")))[:10]


def _document(title: str, heading: str, header: str, sections: Sequence[tuple[str, str]], scripts: Sequence[str]) -> str:
    # A browser reads every line end as one newline before it takes the hash.
    scripts = [script.replace("\r\n", "\n").replace("\r", "\n") for script in (*scripts, _asset("report.js"))]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data: blob:; script-src {allowed}"
    links, bodies = [], []
    for number, (name, body) in enumerate(sections, 1):
        links.append(f'<li><a href="#section-{number}">{escape(name)}</a></li>')
        bodies.append(f'<section aria-labelledby="section-{number}">\n<h2 id="section-{number}">{escape(name)}</h2>\n{body}')
        bodies.append("</section>")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_asset('report.css')}</style>",
            "</head>",
            "<body>",
            '<a class="skip" href="#main">Skip to the content</a>',
            f"<header>\n<h1>{escape(heading)}</h1>\n{header}\n</header>",
            *([f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'] if len(links) > 1 else []),
            '<main id="main" tabindex="-1">',
            *bodies,
            "</main>",
            "<footer><p>Made by regioncount.</p></footer>",
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        ]
    )


def _what_was_run(sweep: Sweep) -> str:
    plan, environments = sweep.plan, sweep.environments
    datasets = {run.dataset.name: run.dataset for run in plan.runs}.values()
    data = [
        f"{escape(d.name)}: {d.train_size:,} training and {d.test_size:,} test images, {d.num_classes} classes, "
        f"training data <code>{escape(d.fingerprints['train'][:12])}</code>"
        for d in datasets
    ]
    grid = [
        f"{escape(column_label(column))} {escape(', '.join(dict.fromkeys(run.varied[column] for run in plan.runs)))}"
        for column in plan.runs[0].varied
        if column not in ("dataset", "model")
    ]
    statuses = [f"{count} {escape(status)}" for status, count in sweep.runs["status"].value_counts().items()]
    rows = {"Data": data, "Networks": [escape(", ".join(_names(sweep, "model")))], "Grid": grid, "Runs": statuses}
    recorded = environments.to_dict("records") or [plan.environment]
    rows["Hardware"] = map(escape, _distinct(recorded, "device"))
    packages = ("regioncount", "torch", "scikit_learn", "python")
    versions = [f"{column_label(name)} {version}" for name in packages for version in _distinct(recorded, name)]
    rows["Versions"] = map(escape, versions)
    rows["Code"] = (f"commit <code>{escape(commit)}</code>" for commit in _distinct(recorded, "commit"))
    if len(environments):
        # What a run's record says is data, and need not be a number.
        training, measured = (
            pd.to_numeric(environments[f"{part}_seconds"], errors="coerce").sum() for part in ("training", "measuring")
        )
        rows["Time"] = [f"{duration(training)} of training and {duration(measured)} of measuring"]
    rows["Command"] = [f"<pre>uv run sweep.py {escape(shlex.join(plan.overrides))}</pre>"]
    present = [f'<a href="{name}">{name}</a>' for name in FILES if (plan.directory / name).is_file()]
    rows["Tables as files"] = [", ".join(present)] if present else []
    options = _definitions({key: [escape(value)] for key, value in _options([run.config for run in plan.runs]).items()})
    return f"{_definitions(rows)}\n<details><summary>Every option</summary>\n{options}\n</details>"


def _group(sweep: Sweep, group: Group, number: int) -> str:
    from regioncount.reporting import charts

    columns, directory = sweep.plan.drawn_columns, sweep.plan.directory
    measures = [measure for measure in region_measures(group.rows) if group.rows[measure].notna().any()]
    accuracies = "train_accuracy" in group.rows
    parts = ["<h3>Correlations</h3>"]
    correlations = tables.correlations(sweep, group)
    parts.append(
        _table(correlations, f"correlations-{number}") if len(correlations.cells) else "<p>Nothing to correlate.</p>"
    )
    for measure in measures if accuracies else ():
        subspace = measure.removeprefix("region_count_")
        figure = charts.count_against_gap(group.rows, measure, group_by=columns)
        what = f"{column_label(measure).capitalize()} against generalization gap, {group.title}"
        caption, left_out = "A dot is a configuration", charts.summarizes(group.rows, columns)
        if left_out:
            caption += f"; {left_out}"
        elif len(group.rows) > len(tables.configurations(sweep, group).cells):
            caption += ", its bars one standard error over seeds; small dots are single runs"
        if not group.rows["fitted"].all():
            caption += "; a hollow one has runs that do not fit their training set"
        caption += ". Point at one to see which it is."
        parts.append(_chart(figure, 460, what, caption, directory / f"count_against_gap_{subspace}{group.suffix}.png"))
    parts += ["<h3>Configurations</h3>", _table(tables.configurations(sweep, group), f"configurations-{number}")]
    maps = []
    for measure in heat_map_measures(group.rows):
        if (figure := charts.heat_map(group.rows, measure, columns)) is not None:
            what = f"{column_label(measure).capitalize()} over the grid, {group.title}"
            maps.append(_chart(figure, 350, what, "", None if maps else directory / f"heat_maps{group.suffix}.png"))
    parts += [f'<div class="heat-maps">{"".join(maps)}</div>'] if maps else []
    parts += _through_training(sweep, group, measures)
    early, regression = tables.early(sweep, group), tables.regression(sweep, group)
    parts += [_table(early, f"early-{number}")] if len(early.cells) else []
    parts += ["<h3>Multiple regression</h3>", _table(regression, f"regression-{number}")] if len(regression.cells) else []
    parts += _ranking(sweep, group, number)
    alternative = "Hessian eigenvalue, active neurons, activation changes, regions and bound over learning rates"
    caption = f"{alternative}, of {group.title}: docs/theory.md. Bars are one standard error over seeds."
    parts += _picture("The theorem", directory / f"theorem{group.suffix}.png", alternative, caption, wide=True)
    picture = directory / f"decision_regions{group.suffix}.png"
    rates = sorted(set(group.rows["learning_rate"].dropna()))
    at = f", at learning rates {value_text(rates[0])} to {value_text(rates[-1])}" if len(rates) > 1 else ""
    alternative = f"Decision regions of {group.title} in the plane through three training images{at}"
    caption = f"{alternative}. White dots are the images; the same class has the same colour."
    parts += _picture("Decision regions", picture, alternative, caption)
    return "\n".join(parts)


def _through_training(sweep: Sweep, group: Group, measures: Sequence[str]) -> list[str]:
    from regioncount.reporting import charts

    parts = []
    for measure in measures:
        subspace = measure.removeprefix("region_count_")
        counts = counts_in(sweep.counts, sweep.plan, group, subspace)
        if counts["epoch"].nunique() > 1:
            figure = charts.count_through_training(counts, measure, sweep.plan.drawn_columns)
            what = f"{column_label(measure).capitalize()} through training, {group.title}"
            picture = sweep.plan.directory / f"count_through_training_{subspace}{group.suffix}.png"
            caption = "A line is a configuration, its band one standard error over seeds."
            parts.append(_chart(figure, 420, what, caption, picture))
    return ["<h3>Through training</h3>", *parts] if parts else []


def _ranking(sweep: Sweep, group: Group, number: int) -> list[str]:
    ranked = tables.rankings(sweep, group)
    if not ranked:
        return []
    parts = ["<h3>Measures ranked</h3>"]
    parts += [_table(table, f"ranking-{number}-{position}") for position, table in enumerate(ranked)]
    picture = sweep.plan.directory / f"measures_against_gap{group.suffix}.png"
    alternative = f"Each measure of {group.title} against the generalization gap, in the order of the ranking"
    caption = "Each measure against the generalization gap, a dot a configuration, in the order of the ranking."
    return parts + _picture(None, picture, alternative, caption, wide=True)


def _every_run(sweep: Sweep) -> str:
    table = sweep.runs
    parts = []
    for position, row in table[table["status"] != "finished"].iterrows():
        cell = " ".join(f"{key}={value}" for key, value in sweep.plan.runs[position].varied.items()) or row["identity"]
        reason = "" if pd.isna(row.get("error")) else f", {row['error']}"
        parts.append(f"<li><code>{escape(cell)}</code>: {escape(row['status'] + reason)}</li>")
    if parts:
        parts = ['<p class="warning">These runs did not finish:</p>', "<ul>", *parts, "</ul>"]
    marked = [tables.marks(row) != ["finished"] for row in table.to_dict("records")]
    return "\n".join([*parts, _filter("runs", "diverged or learning_rate=0.1"), _table(tables.runs(sweep), "runs", marked)])


def _notes() -> str:
    notes = {
        "region count": "How many connected regions of constant predicted label meet a random low-dimensional subspace "
        "between images, on average over the subspaces (Li et al., ICML 2025).",
        "generalization gap": "Train minus test accuracy, in percentage points.",
        "fitted": f"Train accuracy of at least {FITTED_ACCURACY:.0%}. A correlation of count and gap means something only "
        "among such runs.",
        "degenerate": "Test accuracy of at most 1.5 times chance, or a single region on more than half of the subspaces: a "
        "constant predictor has the lowest count there is.",
        "diverged": "The loss was not finite.",
        "intervals": "95 %, percentile bootstrap over configurations, whose seeds are averaged first.",
    }
    return _definitions({name: [escape(text)] for name, text in notes.items()})


def _options(configs: Sequence[RunConfig]) -> dict[str, str]:
    """Every option that is set, with the values it has among the runs; where things lie and are logged is left out."""
    values = {}
    for part in (option.name for option in fields(RunConfig) if option.name not in ("results", "tracker", "device")):
        # Most runs of a sweep have most parts in common.
        for option in {repr(option): option for option in (getattr(config, part) for config in configs)}.values():
            if part == "dataset":
                option = option.model_copy(update={"root": None, "workers": None})
            told = option.model_dump() if part == "dataset" else asdict(option) if is_dataclass(option) else option
            if part == "regions":
                subspaces = {name: subspace.model_dump() for name, subspace in option.subspaces.items()}
                told = {key: told[key] for key in ("seed", "method", "budget", "connectivity") if key in told} | subspaces
            for key, value in _flatten({part: told}):
                values.setdefault(key, {})[value] = None
    return {key: ", ".join(distinct) for key, distinct in values.items()}


def _flatten(options: Mapping, prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value not in (None, []):
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _names(sweep: Sweep, column: str) -> list[str]:
    return list(dict.fromkeys(map(str, sweep.runs[column])))


def _distinct(records: Iterable[Mapping], key: str) -> list[str]:
    """The values of a key, in order; what was not recorded is left out."""
    return [
        str(value) for value in dict.fromkeys(str(record.get(key)) for record in records) if value not in ("None", "nan")
    ]


def _definitions(rows: Mapping[str, Iterable[str]]) -> str:
    """A list of terms and what they are, as HTML; a term of which there is nothing to say is left out."""
    told = {name: list(values) for name, values in rows.items()}
    items = [f"<dt>{escape(name)}</dt><dd>{'<br>'.join(values)}</dd>" for name, values in told.items() if values]
    return "<dl>\n" + "\n".join(items) + "\n</dl>"


def _table(table: Table, identifier: str, marked: Sequence[bool] | None = None) -> str:
    rows = [[escape(str(cell)) for cell in row] for row in table.cells.itertuples(index=False)]
    numeric = [column_title(column) for column in table.numeric]
    return _render(identifier, table.caption, [column_title(column) for column in table.cells], rows, numeric, marked=marked)


def _render(
    identifier: str,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[str] = (),
    long: Sequence[str] = (),
    marked: Sequence[bool] | None = None,
) -> str:
    """A table that can be sorted. rows are HTML already; the other words are not."""
    kinds = [' class="number"' if head in numeric else ' class="long"' if head in long else "" for head in heads]
    pairs = zip(heads, kinds, strict=True)
    head = "".join(
        f'<th scope="col"{kind} aria-sort="none"><button type="button">{escape(name)}</button></th>' for name, kind in pairs
    )
    more = f'<p class="more"><button type="button" data-table="{identifier}">Show all {len(rows):,} rows</button></p>'
    body = []
    for row, mark in zip(rows, marked or [False] * len(rows), strict=True):
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        body.append(f'<tr class="marked">{cells}</tr>' if mark else f"<tr>{cells}</tr>")
    return "\n".join(
        [
            f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{identifier}-caption">',
            f'<table id="{identifier}">',
            f'<caption><span id="{identifier}-caption">{escape(caption)}.</span></caption>',
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table>",
            "</div>",
            *([more] if len(rows) > MOST_ROWS else []),
        ]
    )


def _filter(identifier: str, example: str) -> str:
    return (
        f'<p class="filter"><label for="{identifier}-filter">Filter</label> '
        f'<input id="{identifier}-filter" type="search" data-table="{identifier}" autocomplete="off" '
        f'aria-describedby="{identifier}-help"> <output for="{identifier}-filter" aria-live="polite"></output> '
        f'<small id="{identifier}-help">words that a row must have, such as {example}</small></p>'
    )


def _chart(figure, height: int, what: str, caption: str, picture: Path | None) -> str:
    """A figure that is drawn when it comes into view; without scripts, the picture that lies beside the page."""
    content = figure.to_json().replace("<", "\\u003c")
    still = ""
    if picture is not None and picture.is_file():
        still = f'<noscript><img src="{quote(picture.name)}" alt="{escape(what)}"></noscript>'
    return "\n".join(
        [
            "<figure>",
            f'<div class="plot" role="img" aria-label="{escape(what)}" style="height: {height}px"></div>',
            f'<script type="application/json">{content}</script>{still}',
            f"<figcaption>{escape(caption)}</figcaption>" if caption else "",
            "</figure>",
        ]
    )


def _picture(heading: str | None, path: Path, alternative: str, caption: str, wide: bool = False) -> list[str]:
    """A picture that lies beside the page, embedded; nothing where there is none. A wide one scrolls by itself."""
    if not path.is_file():
        return []
    content = base64.b64encode(path.read_bytes()).decode()
    image = f'<img src="data:image/png;base64,{content}" alt="{escape(alternative)}">'
    if wide:
        image = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(alternative)}">{image}</div>'
    parts = [f"<h3>{escape(heading)}</h3>"] if heading else []
    return [*parts, f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"]


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
