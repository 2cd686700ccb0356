"""Log a sweep's results as one run of the tracker: tables, interactive charts, and pictures of the other figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from regioncount.reporting import charts
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.frames import records
from regioncount.reporting.group_figures import GroupFigures, figure_name, scatter_name
from regioncount.reporting.groups import file_name_part
from regioncount.reporting.headline import headline
from regioncount.runs.identity import identity_of
from regioncount.runs.trackers import Tracker, start

STATISTICS = tuple(f"{name}{end}" for name in ("pearson", "spearman", "kendall") for end in ("", "_low", "_high"))
TABLES = (
    "runs",
    "configurations",
    "correlations",
    "ranking",
    "reliability",
    "comparison",
    "early",
    "snapshots",
    "regression",
)


def track_sweep(results: SweepResults, figures: Sequence[GroupFigures], files: Sequence[Path]) -> bool:
    """Log a sweep's results to its tracker.

    Args:
        results: The sweep's results.
        figures: The data of the figures of each group.
        files: The PNG files of the figures.

    Returns:
        Whether nothing was lost.
    """
    plan = results.plan
    config, name = plan.runs[0].config, plan.directory.name
    if config.tracker.mode == "disabled":
        return True
    with start(
        config.tracker.mode,
        identity=identity_of({"sweep": name}),
        name=name,
        config={
            "runs": len(plan.runs),
            "varied": list(plan.runs[0].varied),
            "data": sorted({group.settings["dataset"] for group in results.groups}),
            "networks": sorted({group.settings["model"] for group in results.groups}),
            "subspaces": list(config.regions.subspaces),
        },
        directory=Path(config.results),
        project=config.tracker.project,
        entity=config.tracker.entity,
        group=name,
        job_type="sweep",
        tags=config.tracker.tags,
        notes=config.tracker.notes,
    ) as tracker:
        for table in TABLES:
            if len(content := getattr(results, table)):
                tracker.table(table, content)
        titles = [group.title for group in results.groups]
        caption = f"{len(results.runs)} runs: {'; '.join(titles[:3])}{f' and {len(titles) - 3} more' * (len(titles) > 3)}"
        charted = figures if tracker.draws_charts else ()
        replaced = {name for group in charted for name in _log_charts(tracker, results, group)}
        for file in files:
            if file.stem not in replaced:
                tracker.figure(file.stem, file, caption)
        tracker.summarize({"headline": headline(results), **_correlations(results)})
    return not tracker.lost


def _correlations(results: SweepResults) -> dict[str, float]:
    """Return the correlations of each region count with the gap, and their intervals, by names one can sort sweeps by.

    With several groups of runs, a name begins with that of the group: "vgg19/region_count_line/kendall_low".
    """
    values: dict[str, float] = {}
    for group in results.groups if len(results.correlations) else ():
        rows = group.select(results.correlations, target="generalization_gap")
        for row in records(rows):
            if results.columns[row["measure"]].is_region_count:
                prefix = "/".join(filter(None, (group.short_title, row["measure"])))
                values |= {f"{prefix}/{name}": float(row[name]) for name in STATISTICS if row[name] == row[name]}
    return values


def _log_charts(tracker: Tracker, results: SweepResults, figures: GroupFigures) -> Iterator[str]:
    """Log the interactive charts of a group; yield the names of the PNG files that they replace."""
    group, settings = figures.group, ["identity", *results.plan.drawn_columns, "seed"]
    for data in figures.scatters:
        name = figures.file_name(scatter_name(data.x, data.y))
        rows = group.rows[[*settings, data.x.key, data.y.key, "fitted"]]
        tracker.scatter(name, rows, data.x.key, data.y.key, f"{data.x.label}, {group.title}")
        yield name
    for lines in figures.detailed_lines:
        name = figures.file_name(figure_name(lines))
        tracker.chart(name, charts.lines(lines))
        yield name
    for number, heat_map in enumerate(figures.heat_maps):
        if (chart := charts.heat_map(heat_map)) is not None:
            facet = f"_{number}_{file_name_part(heat_map.facet)}" if heat_map.facet else ""  # two facets may have one name
            tracker.chart(figures.file_name(f"heat_map_{heat_map.column.key}{facet}"), chart)
            yield figures.file_name("heat_maps")
