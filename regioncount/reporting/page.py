"""Build the report page of a sweep, and the page that lists all sweeps."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from regioncount.analysis import FITTED_ACCURACY
from regioncount.columns import Column
from regioncount.config import RunConfig
from regioncount.reporting import charts, series_charts, statistic_tables, tables
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import DASH, duration, value_text
from regioncount.reporting.frames import records
from regioncount.reporting.group_figures import GroupFigures, figure_name, scatter_name
from regioncount.reporting.groups import group_columns
from regioncount.reporting.headline import headline
from regioncount.reporting.lines_data import Lines
from regioncount.reporting.page_parts import (
    PageChart,
    PageColumn,
    PageTable,
    document,
    page_chart,
    page_picture,
    page_table,
    render,
)
from regioncount.reporting.sweep_figures import SweepFigures

FILES = [
    "runs.csv",
    "configurations.csv",
    "correlations.csv",
    "ranking.csv",
    "reliability.csv",
    "comparison.csv",
    "early.csv",
    "snapshots.csv",
    "regression.csv",
    "region_counts.csv",
    "tables.md",
    "tables.tex",
]
VERSIONS = ("regioncount", "torch", "scikit_learn", "python")

# Options that do not change a run.
OMITTED_OPTIONS = ("results", "tracker", "device", "plugins")


def build(results: SweepResults, figures: Sequence[GroupFigures], shared: SweepFigures) -> str:
    """Return the page of a sweep. PNG files in the sweep's directory are embedded if they exist.

    Args:
        results: The sweep's results.
        figures: The figures of each group.
        shared: The figures of the sweep as a whole.
    """
    from plotly.offline import get_plotlyjs

    several_groups = len(figures) > 1
    sections = [("What was run", render("experiment.html", facts=_facts(results), options=_options(results)))]
    if results.runs.groupby(group_columns(results.plan)).ngroups > 1:
        sections.append(("Overview", _render_table(page_table(tables.overview(results), "overview"))))
    if len(results.comparison):
        sections.append(
            ("Compared with the paper", _render_table(page_table(statistic_tables.comparison(results), "comparison")))
        )
    if shared.series or shared.against_measuring:
        sections.append(("Compared with each other", render("shared.html", charts=_shared(results, shared))))
    for number, group in enumerate(figures, 1):
        sections.append((group.group.short_title if several_groups else "Results", _group(results, group, number)))
    sections.append(("Every run", render("runs.html", unfinished=_unfinished(results), runs=_runs(results))))
    sections.append(("How to read this", render("notes.html", fitted=f"{FITTED_ACCURACY:.0%}")))
    return document(
        f"{results.plan.name}: region counts and generalization",
        results.plan.name,
        " · ".join([tables.data_description(results), *_names(results, "model"), date(results)]),
        sections,
        headline=headline(results),
        scripts=[get_plotlyjs()] if any('class="plot"' in content for _, content in sections) else [],
    )


def summary(results: SweepResults) -> dict[str, Any]:
    """Return the entry of a sweep in the list of sweeps."""
    return {
        "name": results.plan.name,
        "date": date(results),
        "datasets": _names(results, "dataset"),
        "networks": _names(results, "model"),
        "runs": len(results.runs),
        "finished": int((results.runs["status"] == "finished").sum()),
        "headline": headline(results),
    }


def build_index(summaries: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return the page that lists sweeps.

    Args:
        summaries: The `summary` of each sweep, by the name of its directory; None for a sweep without a report.
    """
    rows = []
    ordered = sorted(summaries.items(), key=lambda item: (item[1] or {}).get("date", ""), reverse=True)
    for directory, sweep in ordered:
        if sweep is None:
            rows.append([directory, *[DASH] * 4, "no report yet: rerun the sweep"])
            continue
        link = Markup('<a href="{}/report.html">{}</a>').format(quote(directory), sweep["name"])
        names = [", ".join(sweep[key]) for key in ("datasets", "networks")]
        rows.append([link, sweep["date"], *names, f"{sweep['finished']} of {sweep['runs']}", sweep["headline"]])
    columns = [PageColumn(title) for title in ("sweep", "date", "data", "networks")]
    columns += [PageColumn("runs finished", "number"), PageColumn("main result", "long")]
    table = PageTable("sweeps", "Sweeps, the latest first", columns, rows)
    content = render("table.html", rows=table, example="resnet18 or data=digits")
    return document("Sweeps", "regioncount", "Region counts and generalization", [("All sweeps", content)])


def date(results: SweepResults) -> str:
    """Return the day on which the last run was trained or, if no run was trained, the day of the plan."""
    environments = results.environments
    dates = environments["date"].dropna() if "date" in environments else []
    return max(map(str, dates), default=str(results.plan.environment.get("date", "")))[:10]


def _facts(results: SweepResults) -> dict[str, list[str]]:
    """Return the data, networks, grid, hardware, versions and files of a sweep."""
    plan, environments = results.plan, results.environments
    datasets = {names["dataset"]: run.dataset for names, run in zip(plan.names, plan.runs, strict=True)}
    recorded = records(environments) or [plan.environment]
    grid = {column: dict.fromkeys(run.varied[column] for run in plan.runs) for column in plan.runs[0].varied}
    code = Markup("<code>{}</code>").format
    facts = {
        "Data": [
            Markup("{}: {:,} training and {:,} test images, {} classes, training data {}").format(
                name, data.train_size, data.test_size, data.num_classes, code(data.fingerprints["train"][:12])
            )
            for name, data in datasets.items()
        ],
        "Networks": [", ".join(_names(results, "model"))],
        "Grid": [
            f"{Column(column).label} {', '.join(values)}"
            for column, values in grid.items()
            if column not in ("dataset", "model")
        ],
        "Runs": [f"{count} {status}" for status, count in results.runs["status"].value_counts().items()],
        "Hardware": _distinct(recorded, "device"),
        "Versions": [f"{Column(name).label} {version}" for name in VERSIONS for version in _distinct(recorded, name)],
        "Code": [Markup("commit {}").format(code(commit)) for commit in _distinct(recorded, "commit")],
    }
    if len(environments):
        # Records are untrusted: their times may not be numbers.
        names = ("training_seconds", "measuring_seconds")
        training, measuring = (pd.to_numeric(environments[name], errors="coerce").sum() for name in names)
        facts["Time"] = [f"{duration(training)} of training and {duration(measuring)} of measuring"]
    facts["Command"] = [Markup("<pre>sweep.py {}</pre>").format(shlex.join(plan.overrides))]
    links = [Markup('<a href="{0}">{0}</a>').format(name) for name in FILES if (plan.directory / name).is_file()]
    facts["Tables as files"] = [Markup(", ").join(links)] if links else []
    return facts


def _group(results: SweepResults, figures: GroupFigures, number: int) -> Markup:
    """Return the section of a group of runs."""
    group, directory = figures.group, results.plan.directory

    def path(kind: str) -> Path:
        return directory / f"{figures.file_name(kind)}.png"

    rates = sorted(set(group.rows["learning_rate"].dropna()))
    rate_range = f", at learning rates {value_text(rates[0])} to {value_text(rates[-1])}" if len(rates) > 1 else ""
    planes = f"Decision regions of {group.title} in the plane through three training images{rate_range}"
    theorem = "Hessian eigenvalue, active neurons, activation changes, regions and bound over learning rates"
    through = f"Accuracies, losses and measures of {group.title} through training"
    lines = "A line is a configuration; its colour is the first hyperparameter of the grid."
    panels = f"Each measure of {group.title} against the generalization gap, in the order of the ranking"
    ranked = enumerate(statistic_tables.rankings(results, group))
    return render(
        "group.html",
        correlations=page_table(statistic_tables.correlations(results, group), f"correlations-{number}"),
        configurations=page_table(tables.configurations(results, group), f"configurations-{number}"),
        scatters=_scatters(figures, path),
        heat_maps=_heat_maps(figures, path("heat_maps")),
        against=_lines(figures.against_hyperparameters, figures, path),
        lines=_lines(figures.detailed_lines, figures, path),
        measures_through_training=page_picture(path("measures_through_training"), through, f"{through}. {lines}", wide=True),
        reliability=page_table(statistic_tables.reliability(results, group), f"reliability-{number}"),
        early=page_table(statistic_tables.early(results, group), f"early-{number}"),
        regression=page_table(statistic_tables.regression(results, group), f"regression-{number}"),
        rankings=[page_table(table, f"ranking-{number}-{position}") for position, table in ranked],
        panels=page_picture(path("measures_against_gap"), panels, f"{panels}. A dot is a configuration.", wide=True),
        theorem=page_picture(
            path("theorem"),
            theorem,
            f"{theorem}, of {group.title} (see docs/theory.md). Bars are one standard error over seeds.",
            wide=True,
        ),
        decision_regions=page_picture(
            path("decision_regions"), planes, f"{planes}. White dots are the images; a class has the same colour everywhere."
        ),
    )


def _scatters(figures: GroupFigures, path: Callable[[str], Path]) -> list[PageChart]:
    parts = []
    for data in figures.scatters:
        description = f"{data.x.label.capitalize()} against {data.y.label}, {figures.group.title}"
        caption = ["A dot is a configuration"]
        if omissions := charts.describe_omissions(data):
            caption.append(omissions)
        elif len(data.runs) > len(data.dots):
            caption.append("error bars are one standard error over seeds; small dots are single runs")
        if data.unmarked:
            caption.append(f"{' and '.join(Column(column).label for column in data.unmarked)} not marked")
        if not data.dots["fits"].all():
            caption.append("hollow dots have runs that do not fit their training set")
        text = f"{'; '.join(caption)}. Hover over a dot to see its options and values."
        file = path(scatter_name(data.x, data.y))
        parts.append(page_chart(charts.count_against_gap(data), 460, description, text, file))
    return parts


def _heat_maps(figures: GroupFigures, path: Path) -> list[PageChart]:
    """Return the heat maps. The PNG file contains all of them, so only the first one has it as its fallback."""
    parts: list[PageChart] = []
    for data in figures.heat_maps:
        if (figure := charts.heat_map(data)) is not None:
            description = f"{data.title.capitalize()} over the grid, {figures.group.title}"
            parts.append(page_chart(figure, 350, description, "", None if parts else path))
    return parts


def _lines(lines: Sequence[Lines], figures: GroupFigures, path: Callable[[str], Path]) -> list[PageChart]:
    """Return the charts of lines. The PNG file of a region count has the other measures too."""
    parts = []
    for data in lines:
        file = path(figure_name(data)) if data.column.is_region_count else None
        parts.append(page_chart(charts.lines(data), 420, *_describe_lines(data, figures.group.title), file))
    return parts


def _describe_lines(data: Lines, title: str) -> tuple[str, str]:
    """Return the description and the caption of a figure of lines."""
    along = "through training" if data.axis == "epoch" else f"against {data.axis_label}"
    description = ", ".join(filter(None, (f"{data.column.label.capitalize()} {along}", title, data.facet)))
    bands = {"runs": "over runs with equal options", "subspaces": "over the subspaces of a run, averaged over runs"}
    ended = " A run that has ended keeps its last value." if data.axis == "epoch" else ""
    caption = f"{description}.{ended} Bands are one standard error {bands[data.error_over]}. Hover over a line to see them."
    return description, caption


def _shared(results: SweepResults, figures: SweepFigures) -> list[PageChart]:
    """Return the charts that compare series of runs, and those of options of the measurement."""
    parts = []
    directory = results.plan.directory
    for name, series in figures.series.items():
        description = ", ".join(filter(None, (f"{series.x.label.capitalize()} against {series.y.name}", series.title)))
        caption = (
            "A dot is a configuration, a line the least-squares line of its series; tau is Kendall's, over configurations"
        )
        if not series.fits:
            caption += "; hollow dots have runs that do not fit their training set"
        text = f"{description}. {caption}. Click on a name to hide its series."
        parts.append(page_chart(series_charts.series(series), 500, description, text, directory / f"{name}.png"))
    for name, data in figures.against_measuring.items():
        described = _describe_lines(data.lines, data.title)
        parts.append(page_chart(charts.lines(data.lines), 420, *described, directory / f"{name}.png"))
        if (figure := series_charts.correlation_line(data)) is not None:
            against = f"Kendall's tau of {data.lines.column.label} and generalization gap against {data.lines.axis_label}"
            description = f"{against}, {data.title}"
            parts.append(page_chart(figure, 340, description, f"{description}. Bars are 95 % intervals."))
    return parts


def _unfinished(results: SweepResults) -> list[tuple[str, str]]:
    """Return the cell of each run that did not finish, with its status and the reason."""
    rows = []
    for position, row in enumerate(records(results.runs)):
        if row["status"] != "finished":
            reason = "" if pd.isna(row.get("error")) else f", {row['error']}"
            rows.append((results.describe_cell(position), row["status"] + reason))
    return rows


def _runs(results: SweepResults) -> PageTable | None:
    rows = enumerate(records(results.runs))
    return page_table(tables.runs(results), "runs", {number for number, row in rows if tables.marks(row) != ["finished"]})


def _render_table(table: PageTable | None) -> Markup:
    return render("table.html", rows=table, example="")


def _options(results: SweepResults) -> dict[str, list[str]]:
    """Return every option that is set, with its distinct values in the runs."""
    configs = [run.config for run in results.plan.runs]
    values: dict[str, dict[str, None]] = {}
    for part in (option.name for option in fields(RunConfig) if option.name not in OMITTED_OPTIONS):
        # Flatten each distinct part once: most runs of a sweep share most parts.
        for option in {repr(option): option for option in (getattr(config, part) for config in configs)}.values():
            for key, value in _flatten({part: _as_mapping(part, option)}):
                values.setdefault(key, {})[value] = None
    return {key: [", ".join(distinct)] for key, distinct in values.items()}


def _as_mapping(part: str, option: Any) -> Any:
    """Return a part of a configuration as plain values, without options that do not change a run."""
    if part == "dataset":
        return option.model_copy(update={"root": None, "workers": None}).model_dump()
    if part == "regions":
        subspaces = {name: subspace.model_dump() for name, subspace in option.subspaces.items()}
        return {key: value for key, value in vars(option).items() if key != "subspaces"} | subspaces
    return asdict(option) if is_dataclass(option) and not isinstance(option, type) else option


def _flatten(options: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value not in (None, []):
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _names(results: SweepResults, column: str) -> list[str]:
    return list(dict.fromkeys(map(str, results.runs[column])))


def _distinct(records: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """Return the distinct recorded values of a key, in order."""
    values = dict.fromkeys(str(record.get(key)) for record in records)
    return [value for value in values if value not in ("None", "nan")]
