"""Figures show the values of their tables: dots, lines, cells and texts are read back from the figures."""

import errno
import math
import os
import subprocess
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from regioncount.analysis import correlations, ranking
from regioncount.columns import Column
from regioncount.errors import InputError
from regioncount.reporting import charts, figure_data, lines_data, plots, series_charts, series_data
from regioncount.reporting.group_figures import largest_stable
from regioncount.reporting.plots import planes
from regioncount.reporting.scales import position_on_scale
from regioncount.runs import files

LINE, PLANE = Column("region_count", "line"), Column("region_count", "plane")
COLUMNS = {column.key: column for column in (LINE, PLANE)}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sweep(learning_rates=(0.1, 0.01), batch_sizes=(64, 256), seeds=3, **columns) -> pd.DataFrame:
    """Return runs whose count and gap fall as the learning rate rises, and differ slightly between seeds."""
    grid = [(rate, size, seed) for rate in learning_rates for size in batch_sizes for seed in range(seeds)]
    runs = pd.DataFrame(grid, columns=["learning_rate", "batch_size", "seed"])
    runs["region_count_line"] = 4 - runs["learning_rate"] * 10 + runs["batch_size"] / 256 + runs["seed"] / 10
    return runs.assign(train_accuracy=1.0, test_accuracy=1 - runs["region_count_line"] / 20 + runs["seed"] / 50, **columns)


def through_training(runs, epochs=(0, 10, 20)) -> pd.DataFrame:
    parts = [
        runs.assign(identity=runs.index, epoch=epoch, region_count_line=runs["region_count_line"] + epoch / 10)
        for epoch in epochs
    ]
    return pd.concat(parts, ignore_index=True)


def column(key: str) -> Column:
    return COLUMNS.get(key) or Column(key)


def count_against_gap(runs, measure, target="generalization_gap", group_by=figure_data.GROUP_BY, **options) -> Figure:
    return plots.count_against_gap(figure_data.scatter(runs, column(measure), column(target), group_by), **options)


def heat_maps(runs, measures, group_by=figure_data.GROUP_BY) -> Figure:
    return plots.heat_maps(figure_data.heat_maps(runs, [column(measure) for measure in measures], group_by))


def count_through_training(snapshots, group_by=figure_data.GROUP_BY) -> Figure:
    return plots.lines(lines_data.lines_along(snapshots, LINE, group_by=group_by))


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def dots(figure: Figure) -> list:
    """Return the single points that are drawn with a marker."""
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]


def check_layout(figure: Figure) -> None:
    """Check that nothing extends beyond the edges of the drawn figure."""
    FigureCanvasAgg(figure).draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.01
    assert box.y0 > -0.01
    assert box.x1 < width + 0.01
    assert box.y1 < height + 0.01


def test_dots_are_averages_over_seeds():
    runs = sweep()
    figure = count_against_gap(runs, "region_count_line")
    runs["gap"] = 100 * (runs["train_accuracy"] - runs["test_accuracy"])
    expected = runs.groupby(["learning_rate", "batch_size"])[["region_count_line", "gap"]].mean().to_numpy()
    drawn = [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots(figure)]
    np.testing.assert_allclose(sorted(drawn), sorted(map(tuple, expected)))
    # Each learning rate has a colour, each batch size a marker.
    assert len({to_hex(dot.get_markerfacecolor()) for dot in dots(figure)}) == 2
    assert len({dot.get_marker() for dot in dots(figure)}) == 2
    # Error bars extend one standard error in each direction.
    bar = figure.axes[0].collections[1].get_segments()[0]
    group = runs[(runs["learning_rate"] == 0.01) & (runs["batch_size"] == 64)]["gap"]
    assert bar[1][1] - bar[0][1] == pytest.approx(2 * group.std() / math.sqrt(3))
    check_layout(figure)


def test_the_line_is_the_least_squares_line():
    runs = sweep(learning_rates=(0.1, 0.03, 0.01))
    line = next(line for line in count_against_gap(runs, "region_count_line").axes[0].lines if len(line.get_xdata()) == 2)
    means = runs.groupby(["learning_rate", "batch_size"])[["region_count_line", "test_accuracy"]].mean()
    slope, offset = np.polyfit(means["region_count_line"], 100 * (1 - means["test_accuracy"]), 1)
    np.testing.assert_allclose(line.get_ydata(), slope * np.asarray(line.get_xdata()) + offset)


def test_configurations_with_unfitted_runs_are_hollow():
    runs = sweep()
    runs.loc[0, ["train_accuracy", "test_accuracy"]] = [0.5, 0.4]
    figure = count_against_gap(runs, "region_count_line")
    assert sum(dot.get_markerfacecolor() == "white" for dot in dots(figure)) == 1
    assert "below 99% train accuracy" in words(figure)
    assert "below" not in words(count_against_gap(sweep(), "region_count_line"))
    check_layout(figure)


def test_the_correlation_is_printed_with_its_interval():
    runs = sweep(learning_rates=(0.1, 0.03, 0.01, 0.003))
    row = correlations(runs, ["region_count_line"], group_by=["learning_rate", "batch_size"]).iloc[0].to_dict()
    figure = count_against_gap(runs, "region_count_line", correlation=row, title="digits, mlp")
    interval = (
        f"Kendall's tau = {row['kendall']:.2f} [{row['kendall_low']:.2f}, {row['kendall_high']:.2f}], 8 configurations"
    )
    assert interval in words(figure)
    assert "fitted" not in words(figure)
    assert "digits, mlp" in words(figure)
    check_layout(figure)

    runs.loc[runs["learning_rate"] > 0.005, "train_accuracy"] = 0.95
    row = correlations(runs, ["region_count_line"], group_by=["learning_rate", "batch_size"]).iloc[0].to_dict()
    figure = count_against_gap(runs, "region_count_line", correlation=row)
    assert "fitted runs alone: undefined: 2 configurations, 3 are needed" in words(figure)
    check_layout(figure)


def test_heat_maps_show_the_averages_of_the_cells():
    runs = sweep()
    runs = runs[(runs["learning_rate"] > 0.05) | (runs["batch_size"] == 64)]
    figure = heat_maps(runs, ["region_count_line", "test_accuracy"])
    for axes, measure, unit in zip(figure.axes, ["region_count_line", "test_accuracy"], [1, 100], strict=True):
        means = unit * runs.groupby(["learning_rate", "batch_size"])[measure].mean()
        cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
        expected = {(0, 0): means[0.01, 64], (1, 0): means[0.1, 64], (1, 1): means[0.1, 256]}  # no runs at (0.01, 256)
        assert cells == {cell: f"{value:.2f}" for cell, value in expected.items()}
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["64", "256"]
    assert "test accuracy (%)" in words(figure)
    check_layout(figure)


def test_lines_through_training_are_averages_over_seeds():
    snapshots = through_training(sweep())
    figure = count_through_training(snapshots)
    assert figure.axes[0].get_ylabel() == "region count (line)"
    by = snapshots.groupby(["learning_rate", "batch_size", "epoch"])
    lines = figure.axes[0].lines
    np.testing.assert_allclose([line.get_ydata() for line in lines], by["region_count_line"].mean().unstack().to_numpy())
    assert len({to_hex(line.get_color()) for line in lines}) == 2
    assert len({str(line.get_linestyle()) for line in lines}) == 2
    check_layout(figure)
    snapshots["training_hessian_eigenvalue"] = 1 / snapshots["learning_rate"] + snapshots["epoch"]
    columns = [Column("test_accuracy"), Column("training_hessian_eigenvalue")]
    panels = [lines_data.lines_along(snapshots, column, facets=False)[0] for column in columns]
    figure = plots.measures_through_training(panels, {0.1: 21.0, 0.01: 190.0, 0.3: 7.0})  # 0.3 is not drawn
    accuracies, eigenvalues = figure.axes[:2]
    drawn = [line.get_ydata() for line in accuracies.lines]
    np.testing.assert_allclose(drawn, 100 * by["test_accuracy"].mean().unstack().to_numpy())
    horizontal = [line.get_ydata()[0] for line in eigenvalues.lines if len({*line.get_ydata()}) == 1]
    assert horizontal == [21, 190]
    check_layout(figure)


SGD = {"name": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("optimizers", "expected"),
    [
        ([SGD, SGD], {0.1: 20}),
        ([SGD | {"momentum": 0.9}, SGD | {"momentum": 0.9, "learning_rate": 0.01}], {0.1: 38, 0.01: 380}),
        ([SGD, SGD | {"momentum": 0.9}], {}),  # a line for each learning rate could not show both
        ([SGD, SGD | {"momentum": 0.9, "nesterov": True}], {}),
        ([SGD | {"name": "adam"}], {}),
        ([SGD | {"learning_rate": 0.0}], {}),
    ],
)
def test_the_largest_stable_eigenvalue_of_gradient_descent_with_momentum(optimizers, expected):
    """The largest h for which steps of gradient descent on h x^2 / 2 converge; `expected` is where they no longer do."""
    runs = [SimpleNamespace(config=SimpleNamespace(optimizer=options)) for options in optimizers]
    results, group = (
        SimpleNamespace(plan=SimpleNamespace(runs=runs)),
        SimpleNamespace(rows=pd.DataFrame(index=range(len(runs)))),
    )
    assert largest_stable(results, group) == pytest.approx(expected)
    momentum = optimizers[0].get("momentum", 0)
    for rate, eigenvalue in expected.items():
        for curvature, converges in ((0.99 * eigenvalue, True), (1.01 * eigenvalue, False)):
            x, velocity = 1.0, 0.0
            for _ in range(4000):
                velocity = momentum * velocity + curvature * x
                x -= rate * velocity
                if abs(x) > 1e6:
                    break
            assert (abs(x) < 1) == converges


def test_lines_through_training_do_not_change_where_one_of_the_runs_ends():
    """Two runs with constant counts that a stop rule ended at different epochs, measured every 8 epochs and at the end."""
    rows = [(0, 2, epoch) for epoch in (0, 8, 16, 20)] + [(1, 3, epoch) for epoch in (0, 8, 16, 24, 30)]
    snapshots = pd.DataFrame(rows, columns=["identity", "region_count_line", "epoch"]).assign(
        learning_rate=0.1, batch_size=8
    )
    [data] = lines_data.lines_along(snapshots, LINE)
    [line] = data.lines
    assert list(line.x) == [0, 8, 16, 24, 30]  # at epoch 20, the other run was not measured
    assert list(line.mean) == [2.5] * 5
    assert list(line.runs) == [2] * 5
    snapshots.loc[3, "region_count_line"] = np.nan  # undefined at the end: the value before it does not stand for it
    [data] = lines_data.lines_along(snapshots, LINE)
    assert list(data.lines[0].x) == [0, 8, 16]


def test_counts_against_a_hyperparameter_are_averages_over_seeds():
    runs = sweep(learning_rates=(0.1, 0.03, 0.01))
    [data] = lines_data.lines_along(runs, LINE, "learning_rate", ["batch_size"])
    figure = plots.lines([data])
    by = runs.groupby(["batch_size", "learning_rate"])["region_count_line"]
    drawn = [line.get_xydata() for line in figure.axes[0].lines]
    for line, (_, means) in zip(drawn, by.mean().groupby("batch_size"), strict=True):
        np.testing.assert_allclose(line, list(zip((0.01, 0.03, 0.1), means, strict=True)))
    band = figure.axes[0].collections[0].get_paths()[0].get_extents()
    mean, error = by.mean()[64, 0.01], by.sem()[64, 0.01]
    assert band.y1 == pytest.approx(mean + error)
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_xlabel()) == ("log", "learning rate")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.01", "0.03", "0.1"]
    check_layout(figure)
    page = charts.lines(data)
    assert page.layout.xaxis.type == "log"
    shown = [trace for trace in page.data if trace.mode == "lines+markers"]
    np.testing.assert_allclose([trace.y for trace in shown], by.mean().unstack().to_numpy())


def with_decays(decays) -> pd.DataFrame:
    """Return runs with a third hyperparameter, on which the count depends."""
    runs = [sweep(weight_decay=decay) for decay in decays]
    for number, table in enumerate(runs):
        table["region_count_line"] += number**2
    return pd.concat(runs, ignore_index=True)


THREE = ["learning_rate", "batch_size", "weight_decay"]


def test_no_figure_averages_over_a_third_hyperparameter():
    runs = with_decays((1e-5, 1e-6, 1e-7))
    means = runs.groupby(THREE)["region_count_line"].mean()
    data = figure_data.scatter(runs, LINE, group_by=THREE)
    assert (data.marked, data.unmarked) == (["batch_size", "weight_decay"], [])
    figure = plots.count_against_gap(data)
    assert len({(to_hex(dot.get_markerfacecolor()), dot.get_marker()) for dot in dots(figure)}) == len(means)
    assert "batch size 64, weight decay 1e-05" in words(figure)
    check_layout(figure)
    figure = heat_maps(runs, ["region_count_line", "test_accuracy"], THREE)
    assert len(figure.axes) == 6
    for axes, decay in zip(figure.axes, sorted({*runs["weight_decay"]}), strict=False):
        assert axes.get_title() == f"region count (line)\nweight decay {decay:g}"
        cells = {text.get_position(): text.get_text() for text in axes.texts}
        expected = {
            (x, y): means[rate, size, decay] for x, rate in enumerate((0.01, 0.1)) for y, size in enumerate((64, 256))
        }
        assert cells == {cell: f"{value:.2f}" for cell, value in expected.items()}
    assert len({axes.images[0].get_clim() for axes in figure.axes[:3]}) == 1  # one colour scale for a measure
    check_layout(figure)
    counts = through_training(runs)
    figure = count_through_training(counts, THREE)
    expected = counts.groupby([*THREE[::-1], "epoch"])["region_count_line"].mean().unstack()
    for axes, decay in zip(figure.axes, sorted({*runs["weight_decay"]}), strict=False):
        assert axes.get_title() == f"weight decay {decay:g}"
        drawn = sorted(tuple(line.get_ydata()) for line in axes.lines)
        np.testing.assert_allclose(drawn, sorted(map(tuple, expected.loc[decay].to_numpy())))
    check_layout(figure)
    pages = lines_data.lines_along(counts, LINE, group_by=THREE, facets=False)
    assert [(lines.facet, len(lines.lines)) for lines in pages] == [("", len(means))]


def test_what_is_averaged_over_is_named():
    """With too many values for panels and markers, figures say over what they average and what they do not mark."""
    runs = with_decays(np.geomspace(1e-7, 1e-3, 8))
    data = figure_data.scatter(runs, LINE, group_by=THREE)
    assert (data.marked, data.unmarked) == (["batch_size"], ["weight_decay"])
    figure = plots.count_against_gap(data)
    assert len(dots(figure)) == runs.groupby(THREE).ngroups
    assert "not marked: weight decay" in words(figure)
    for figure in (heat_maps(runs, ["region_count_line"], THREE), count_through_training(through_training(runs), THREE)):
        assert "averaged over weight decay" in words(figure)
        check_layout(figure)
    [cells] = figure_data.heat_maps(runs, [LINE], THREE)
    expected = runs.groupby(["batch_size", "learning_rate"])["region_count_line"].mean().unstack()
    np.testing.assert_allclose(cells.cells, expected.to_numpy())
    assert charts.heat_map(cells).layout.title.text == "region count (line), averaged over weight decay"
    many = with_decays(np.geomspace(1e-7, 1e-3, lines_data.MAX_LINES // 4 + 1))
    [lines] = lines_data.lines_along(through_training(many), LINE, group_by=THREE, facets=False)
    assert (lines.facet, len(lines.lines)) == ("averaged over weight decay", 4)


def test_decision_regions_share_their_colours():
    first, second = np.zeros((6, 6), int), np.full((6, 6), 7)
    first[:, 3:], first[0, 0], second[:, 3:] = 7, -1, 2
    names = [f"name {label}" for label in range(10)]
    figure = plots.decision_regions([first, second], ["small", "large"], names, [[[1, 2], [3, 4], [5, 1]], None])
    shown = [axes.images[0].cmap(axes.images[0].norm(axes.images[0].get_array())) for axes in figure.axes]
    for image, grid in zip(shown, (first, second), strict=True):
        for label in {0, 2, 7} & set(grid.ravel()):
            assert (image[grid == label, :3] == to_rgb(plots.CLASS_COLOURS[label])).all()
    assert shown[0][0, 0, 3] == 0  # blank
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["name 0", "name 2", "name 7"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), [[1, 2], [3, 4], [5, 1]])
    assert not figure.axes[1].lines
    assert figure.axes[0].images[0].origin == "lower"
    check_layout(figure)


def test_decision_regions_of_many_classes_have_a_short_legend():
    grid = np.arange(100).repeat(4).reshape(20, 20)
    figure = plots.decision_regions([grid], ["all"], [f"class {label} of a long name" for label in range(100)])
    assert "and 76 more" in words(figure)
    check_layout(figure)


def test_class_colours_differ():
    assert len(set(plots.CLASS_COLOURS)) == 10
    assert len(set(planes.class_colours(np.arange(30)).values())) == 30


@pytest.mark.parametrize(
    ("runs", "group_by"),
    [
        (sweep(batch_sizes=(64,)).drop(columns="batch_size"), ["learning_rate"]),
        (sweep(batch_sizes=(64,)).drop(columns="batch_size"), ["learning_rate", "batch_size"]),
        (sweep(learning_rates=(0.1,)), ["batch_size"]),
        (sweep(), []),
        (sweep(seeds=1), ["learning_rate", "batch_size"]),
        (sweep(learning_rates=(0.0,), seeds=1), ["learning_rate"]),
        (sweep(learning_rates=(0.0, 0.1)), ["learning_rate", "batch_size"]),
        (sweep(learning_rates=tuple(np.geomspace(1e-5, 0.1, 24))), ["learning_rate", "batch_size"]),
        (sweep(batch_sizes=tuple(2**i for i in range(12))), ["learning_rate", "batch_size"]),
        (sweep(width=["16", "32", "8"] * 4), ["width", "learning_rate", "batch_size"]),
        (sweep(width=["wide", None, "slim"] * 4), ["learning_rate", "width", "batch_size"]),
        (sweep(weight_decay=[1e-5, 0.0, None] * 4), ["weight_decay", "learning_rate"]),
        (sweep(momentum=[-1, 0, 1] * 4), ["momentum"]),
    ],
)
def test_every_kind_of_grid_can_be_drawn(runs, group_by):
    figure = count_against_gap(runs, "region_count_line", "test_error", group_by)
    columns = [column for column in group_by if column in runs]
    assert len(dots(figure)) == (runs.groupby(columns, dropna=False).ngroups if columns else 1)
    check_layout(figure)
    figure = heat_maps(runs, ["region_count_line", "test_accuracy"], group_by)
    assert len(figure.axes[0].texts) == (runs.groupby(columns[:2], dropna=False).ngroups if columns else 1)
    check_layout(figure)
    figure = count_through_training(through_training(runs), group_by)
    assert len(figure.axes[0].lines) == (runs.groupby(columns[:2], dropna=False).ngroups if columns else 1)
    check_layout(figure)


def test_positions_are_logarithmic_with_zero_below():
    assert position_on_scale(pd.Series([0.1, 0.001, 0.01])) == pytest.approx({0.001: 0, 0.01: 0.5, 0.1: 1})
    assert position_on_scale(pd.Series([0.1, 0, 0.01])) == pytest.approx({0: 0, 0.01: 0.5, 0.1: 1})
    assert position_on_scale(pd.Series([4, -4, 0])) == pytest.approx({-4: 0, 0: 0.5, 4: 1})


def test_numeric_strings_are_sorted_as_numbers():
    figure = heat_maps(sweep(width=["16", "32", "8"] * 4), ["region_count_line"], ["width"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["8", "16", "32"]


def test_diverged_runs_are_left_out():
    runs = sweep()
    diverged = pd.concat([runs, runs.iloc[[0, 4]].assign(region_count_line=[math.nan, math.inf], test_accuracy=math.nan)])
    for draw in (
        lambda table: count_against_gap(table, "region_count_line"),
        lambda table: heat_maps(table, ["region_count_line", "test_accuracy"]),
        lambda table: count_through_training(through_training(table)),
    ):
        one, other = draw(runs), draw(diverged)
        assert words(one) == words(other)
        for line, again in zip(one.axes[0].lines, other.axes[0].lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), again.get_xydata())


def test_figures_without_finished_runs_say_so():
    empty, diverged = sweep().iloc[:0], sweep().assign(region_count_line=math.nan)
    figures = [count_against_gap(table, "region_count_line") for table in (pd.DataFrame(), empty, diverged)]
    figures += [heat_maps(table, ["region_count_line"]) for table in (pd.DataFrame(), empty, diverged)]
    figures += [count_through_training(table) for table in (pd.DataFrame(), through_training(diverged))]
    figures.append(plots.decision_regions([], [], []))
    for figure in figures:
        assert words(figure) == "no finished runs"
        check_layout(figure)


def test_missing_columns_are_named():
    with pytest.raises(InputError, match="no column region_count_plane;"):
        count_against_gap(sweep(), "region_count_plane")
    with pytest.raises(InputError, match="no column sharpness;"):
        heat_maps(sweep(), ["region_count_line", "sharpness"])
    with pytest.raises(InputError, match="no column epoch;"):
        count_through_training(sweep())
    with pytest.raises(InputError, match="percent"):
        count_against_gap(sweep().assign(test_accuracy=80.0), "region_count_line")


def test_drawing_does_not_modify_tables():
    runs = sweep(width=["16", "32", "8"] * 4)
    before = runs.copy()
    count_against_gap(runs, "region_count_line", group_by=["width"])
    heat_maps(runs, ["region_count_line"], ["width"])
    pd.testing.assert_frame_equal(runs, before)


def test_identical_data_gives_identical_files_in_any_thread(tmp_path):
    def write(name):
        plots.save(count_against_gap(sweep(), "region_count_line"), tmp_path / "new" / name)

    write("here.png")
    thread = threading.Thread(target=write, args=("thread.png",))
    thread.start()
    thread.join()
    content = (tmp_path / "new" / "here.png").read_bytes()
    assert content == (tmp_path / "new" / "thread.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"Software" not in content
    assert b"matplotlib" not in content
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["here.png", "thread.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        plots.save(heat_maps(sweep(), ["region_count_line"]), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("figure.png", b"old")]
    with pytest.raises(InputError, match="PNG or PDF"):
        plots.save(heat_maps(sweep(), ["region_count_line"]), tmp_path / "figure.doc")


def test_measures_are_drawn_in_the_order_of_the_ranking():
    rng = np.random.default_rng(0)
    runs = sweep(learning_rates=(0.1, 0.03, 0.01), batch_sizes=(64, 128, 256), weight_decay=0.0)
    runs["parameter_norm"] = rng.random(len(runs))
    runs["epochs_to_fit"] = math.nan
    runs["parameter_count"] = 10.0
    measures = ["parameter_count", "parameter_norm", "epochs_to_fit", "region_count_line"]
    ranked = ranking(runs, measures)
    as_text = runs.assign(learning_rate=runs["learning_rate"].astype(str))  # as varied options of a grid are
    figure = plots.measures_against_gap(figure_data.measure_panels(as_text, ranked, column), title="a title")
    check_layout(figure)
    drawn = [axes for axes in figure.axes if axes.collections and axes.get_title()]
    titles = [axes.get_title().splitlines() for axes in drawn]
    # Measures that are undefined for all runs are omitted, constant ones come last.
    assert [title[0] for title in titles] == ["region count (line)", "parameter norm", "parameter count"]
    assert [title[1] for title in titles] == [
        f"tau {ranked['kendall'][0]:.2f}",
        f"tau {ranked['kendall'][1]:.2f}",
        "constant",
    ]
    gap = 100 * (runs["train_accuracy"] - runs["test_accuracy"])
    expected = runs.assign(gap=gap).groupby(["learning_rate", "batch_size"])[["parameter_norm", "gap"]].mean()
    assert np.allclose(drawn[1].collections[0].get_offsets(), expected.to_numpy())


def test_many_configurations_have_small_dots_and_no_legend():
    runs = sweep(learning_rates=tuple(np.geomspace(1e-4, 0.1, 40)), batch_sizes=tuple(range(8, 408, 10)), seeds=1)
    figure = count_against_gap(runs, "region_count_line")
    drawn = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    runs["gap"] = 100 * (runs["train_accuracy"] - runs["test_accuracy"])
    expected = runs.groupby(["learning_rate", "batch_size"])[["region_count_line", "gap"]].mean().to_numpy()
    np.testing.assert_allclose(sorted(map(tuple, drawn)), sorted(map(tuple, expected)))
    assert not figure.legends
    check_layout(figure)
    figure = heat_maps(runs, ["region_count_line"])
    assert not figure.axes[0].texts
    assert len(figure.axes) == 2  # the second is the colour bar
    check_layout(figure)


def test_a_page_limits_the_number_of_dots_and_reports_the_limit():
    few, some, many = (
        sweep(
            learning_rates=tuple(np.geomspace(1e-4, 0.1, rates)), batch_sizes=tuple(range(8, 808, 10)), seeds=seeds
        ).assign(identity="a" * 16)
        for rates, seeds in ((4, 2), (20, 2), (50, 1))
    )
    data, drawn = [], []
    for runs in (few, some, many):
        data.append(figure_data.scatter(runs, LINE))
        figure = charts.count_against_gap(data[-1])
        drawn.append(sum(len(trace.x) for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None))
    assert drawn == [4 * 80 * 3, 20 * 80, charts.MAX_DOTS]
    texts = [charts.describe_omissions(scatter) for scatter in data]
    assert texts == ["", "single runs are not drawn", "3,000 of 4,000 configurations are drawn, evenly spaced in the table"]


def test_dollar_signs_are_not_parsed_as_formulas(tmp_path):
    title = r"$\nonsense$ costs 5 $, $\frac{"
    figures = [count_against_gap(sweep(), "region_count_line", title=title)]
    figures.append(plots.decision_regions([np.arange(16).reshape(4, 4) % 2], [title], [title, "dog"], [np.zeros((3, 2))]))
    for number, figure in enumerate(figures):
        plots.save(figure, tmp_path / f"{number}.png")
        texts = [text for text in figure.findobj(Text) if title in text.get_text()]
        assert texts
        assert not any(text.get_parse_math() for text in texts)


def test_figures_use_the_label_and_unit_of_a_plugin_measure():
    """Both kinds of figures use the label and the unit that are stored with the values."""
    mine = Column("mine", declared_label="my measure", unit="nats")
    data = figure_data.scatter(sweep(mine=np.arange(12.0), identity="a" * 16), mine)
    assert "my measure (nats)" in words(plots.count_against_gap(data))
    assert charts.count_against_gap(data).layout.xaxis.title.text == "my measure (nats)"
    [cells] = figure_data.heat_maps(sweep(mine=np.arange(12.0)), [mine])
    assert charts.heat_map(cells).layout.title.text == "my measure (nats)"


def test_series_are_drawn_with_their_own_averages_and_lines():
    """Both kinds of figures show the dots and the least-squares line of each series."""
    plain = sweep(learning_rates=(0.1, 0.03, 0.01), identity="a" * 16)
    mixed = plain.assign(region_count_line=plain["region_count_line"] ** 1.5, train_accuracy=0.98)
    hyperparameters = list(figure_data.GROUP_BY)
    data = series_data.series(
        {"none": plain, "mixup": mixed}, LINE, figure_data.GAP, hyperparameters, hyperparameters, "net"
    )
    drawn, chart = plots.series(data), series_charts.series(data)
    lines = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == 2]
    markers = [trace for trace in chart.data if trace.mode == "markers" and trace.x[0] is not None]
    chart_lines = [trace for trace in chart.data if trace.mode == "lines"]
    points = [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots(drawn)]
    for number, runs in enumerate((plain, mixed)):
        runs = runs.assign(gap=100 * (runs["train_accuracy"] - runs["test_accuracy"]))
        means = runs.groupby(hyperparameters)[["region_count_line", "gap"]].mean().to_numpy()
        np.testing.assert_allclose(points[6 * number : 6 * number + 6], means)
        np.testing.assert_allclose(np.transpose([markers[number].x, markers[number].y]), means)
        slope, offset = np.polyfit(*means.T, 1)
        for x, y in (lines[number].get_data(), (chart_lines[number].x, chart_lines[number].y)):
            np.testing.assert_allclose(y, slope * np.asarray(x) + offset)
        tau = correlations(runs, ["region_count_line"], group_by=hyperparameters).iloc[0]["kendall"]
        assert f"{('none', 'mixup')[number]}: tau {tau:.2f}" in words(drawn)
        assert any(f"tau {tau:.2f}" in (trace.name or "") for trace in chart.data)
    assert len({line.get_color() for line in lines}) == 2
    assert "below 99% train accuracy" in words(drawn)
    assert "net" in words(drawn)
    check_layout(drawn)


def test_series_need_two_with_values_and_have_distinct_looks():
    runs, columns = sweep(), list(figure_data.GROUP_BY)
    diverged = runs.assign(region_count_line=math.nan)
    assert series_data.series({"a": runs, "b": diverged}, LINE, figure_data.GAP, columns, columns) is None
    many = {f"network {number} with a long name": runs for number in range(series_data.MAX_SERIES)}
    figure = plots.series(series_data.series(many, LINE, figure_data.GAP, columns, columns))
    looks = {(to_hex(dot.get_markerfacecolor()), dot.get_marker()) for dot in dots(figure)}
    assert len(looks) == series_data.MAX_SERIES
    check_layout(figure)
    many["one more"] = runs
    assert series_data.series(many, LINE, figure_data.GAP, columns, columns) is None


@pytest.mark.parametrize("facets", [1, 2])
def test_count_gap_and_error_are_drawn_against_a_hyperparameter(facets):
    runs = sweep(weight_decay=0.0)
    runs["generalization_gap"] = runs["train_accuracy"] - runs["test_accuracy"]
    runs["width"] = runs["seed"] % facets
    panels = []
    for measure in (LINE, Column("generalization_gap")):
        panels += lines_data.lines_along(runs, measure, "learning_rate", ["batch_size", "weight_decay", "width"])
    assert len(panels) == 2 * facets
    figure = plots.lines(panels)
    for axes, data in zip(figure.axes, panels, strict=False):
        assert axes.get_ylabel() == data.column.label
        selected = runs if facets == 1 else runs[runs["width"] == int(data.facet.split()[-1])]
        means = data.column.factor * selected.groupby(["batch_size", "learning_rate"])[data.column.key].mean().unstack()
        np.testing.assert_allclose([line.get_ydata() for line in axes.lines], means.to_numpy())
        chart = [trace.y for trace in charts.lines(data).data if trace.mode == "lines+markers"]
        np.testing.assert_allclose(chart, means.to_numpy())
    check_layout(figure)


def test_counts_against_the_number_of_lines_have_the_error_over_lines_and_the_correlation():
    parts = [
        sweep(learning_rates=(0.1, 0.03, 0.01), region_count_line_standard_error=1 / math.sqrt(number)).assign(
            number=str(number)
        )
        for number in (1000, 10, 100)
    ]
    runs = pd.concat(parts, ignore_index=True)
    error = LINE.with_part("standard_error")
    [lines] = lines_data.lines_along(runs, LINE, "number", list(figure_data.GROUP_BY), facets=False, error=error)
    assert len(lines.lines) == 6
    for line in lines.lines:
        assert line.x.tolist() == [10, 100, 1000]
        np.testing.assert_allclose(line.error, [1 / math.sqrt(number) for number in line.x])
        rate, size = line.values
        chosen = runs[(runs["learning_rate"] == rate) & (runs["batch_size"] == size)]
        np.testing.assert_allclose(line.mean, chosen["region_count_line"].mean())
    table = pd.DataFrame({"number": ["1000", "10"], "kendall": [0.9, 0.5], "kendall_low": [0.7, math.nan]})
    correlation = series_data.correlation_line(table.assign(kendall_high=[0.95, math.nan]), "number")
    data = series_data.AgainstMeasuring(lines, correlation, "digits, mlp")
    figure, chart = plots.against_measuring(data), series_charts.correlation_line(data)
    drawn = next(line for line in figure.axes[1].lines if len(line.get_xdata()) == 2)
    assert list(zip(*drawn.get_data(), strict=True)) == list(zip(chart.data[0].x, chart.data[0].y, strict=True))
    assert list(chart.data[0].y) == [0.5, 0.9]
    np.testing.assert_allclose(chart.data[0].error_y.arrayminus, [0, 0.2])
    assert figure.axes[0].get_xscale() == figure.axes[1].get_xscale() == "log"
    assert "number of subspaces" in words(figure)
    check_layout(figure)
    undefined = table.assign(kendall=math.nan, kendall_high=math.nan)
    assert series_data.correlation_line(undefined, "number") is None
    check_layout(plots.against_measuring(series_data.AgainstMeasuring(lines, None, "digits")))


PDF_FILES = """
import sys
import pandas as pd
from regioncount.reporting import figure_data, lines_data, plots
from regioncount.columns import Column
runs = pd.DataFrame({"learning_rate": [0.1, 0.01], "train_accuracy": 1.0, "test_accuracy": [0.5, 0.4], "n": [1.0, 2.0]})
plots.save(plots.count_against_gap(figure_data.scatter(runs, Column("n")), title="a title"), sys.argv[1])
"""


def test_pdf_files_are_identical_in_every_process_and_embed_their_fonts(tmp_path):
    contents = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.pdf"
        subprocess.run([sys.executable, "-c", PDF_FILES, path], check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"%PDF")
    assert b"/CIDFontType2" in contents[0]  # TrueType
    assert b"/Type3" not in contents[0]
    assert b"CreationDate" not in contents[0]
    assert b"matplotlib" not in contents[0].lower()


def test_titles_of_decision_regions_may_have_two_lines():
    grid = np.arange(16).reshape(4, 4) % 2
    check_layout(
        plots.decision_regions([grid] * 2, ["scale 1\n2 regions per segment"] * 2, ["-1", "1"], [np.ones((2, 2))] * 2)
    )
