"""Reports of sweeps with known numbers: their content in every format, and errors for invalid input."""

import base64
import csv
import html
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import fake_sweeps
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from regioncount.reporting import collect, headline, markup, plots, report, statistic_tables, tables
from regioncount.reporting.result_columns import ResultColumns
from regioncount.runs import environment, files, plans

# A PNG of one pixel.
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
HOSTILE = "<script>document.title='pwned'</script>\"'&<b>"

# A scatter plot, three heat maps, count, gap and test error against two hyperparameters, and counts through training.
CHARTS = 1 + 3 + 3 * 2 + 1


@pytest.fixture(autouse=True)
def _small_figures(monkeypatch):
    """Replace each figure by a single pixel; test_plots.py tests figures."""
    monkeypatch.setattr(plots, "save", lambda figure, path: Path(path).write_bytes(DOT))


class Page(HTMLParser):
    """The elements of a page, its text, and the rows of its tables."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements, self.text, self.tables, self._open = [], "", {}, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag == "table":
            self.tables[dict(attributes)["id"]] = self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self._open or "style" in self._open:
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make_report(results, **options) -> tuple[Path, Page]:
    directory = fake_sweeps.write_sweep(results, **options)
    report.report(directory)
    return directory, Page(directory / "report.html")


def averages(rates=(0.1, 0.01, 0.001), sizes=(32, 64), seeds=(0, 1)) -> pd.DataFrame:
    """Return the expected counts and gaps of the configurations of `fake_sweeps.write_sweep`."""
    cells = [
        (rate, size, *np.mean([fake_sweeps.count_and_gap(rate, size, s) for s in seeds], axis=0))
        for rate in rates
        for size in sizes
    ]
    return pd.DataFrame(cells, columns=["learning_rate", "batch_size", "count", "gap"])


def headline_of(sweep: Path) -> str:
    return headline.headline(collect.collect(plans.read(sweep)))


def test_the_headline_is_the_correlation_over_configurations(tmp_path):
    tau = stats.kendalltau(averages()["count"], averages()["gap"]).statistic
    sentence = headline_of(fake_sweeps.write_sweep(tmp_path))
    match = re.fullmatch(
        r"Over 6 configurations \(12 runs, all fitted\), Kendall's tau of region count and generalization gap is "
        r"(\S+) \(no interval\)\.",
        sentence,
    )
    assert match, sentence
    assert float(match[1]) == pytest.approx(tau, abs=0.005)


def test_the_headline_describes_the_runs_behind_it(tmp_path):
    """It quotes fitted runs first if some are not fitted, the reason for a missing number, and unfinished runs."""
    partly = headline_of(fake_sweeps.write_sweep(tmp_path / "partly", unfitted=(0, 1), failed=(11,), diverged=(10,)))
    rest = averages().iloc[1:5]
    tau = stats.kendalltau(rest["count"], rest["gap"]).statistic
    assert "Over the 4 configurations that fit their training set (8 of 10 runs), Kendall's tau of" in partly
    assert f"is {tau:.2f} (no interval)" in partly
    assert "over all 5 it is" in partly
    assert "1 of 12 runs failed." in partly
    assert "1 of 12 runs diverged." in partly
    few = headline_of(fake_sweeps.write_sweep(tmp_path / "few", rates=(0.1,)))
    assert "is undefined: 2 configurations, 3 are needed" in few
    none = headline_of(fake_sweeps.write_sweep(tmp_path / "none", failed=range(12)))
    assert none == "None of the 12 runs has finished. 12 of 12 runs failed."
    several = headline_of(fake_sweeps.write_sweep(tmp_path / "several", networks=("mlp", "small_cnn")))
    assert "Over 2 networks (24 runs, all fitted)" in several
    one = headline_of(fake_sweeps.write_sweep(tmp_path / "one", networks=("mlp", "small_cnn"), failed=range(14, 24)))
    tau = stats.kendalltau(averages()["count"], averages()["gap"]).statistic
    assert "Over 2 networks (14 runs, all fitted)" in one
    assert f"is {tau:.2f} (mlp), and is undefined for 1" in one
    unmeasured = headline_of(fake_sweeps.write_sweep(tmp_path / "unmeasured", subspaces=()))
    assert unmeasured == "12 runs have finished; nothing to correlate was measured."


def test_the_page_has_every_configuration_and_run(tmp_path):
    directory, page = make_report(tmp_path, unfitted=(3,), diverged=(5,))
    expected = averages()
    heads, *rows = page.tables["configurations-1"]
    assert heads[:2] == ["learning rate", "batch size"]
    assert {(float(row[0]), int(row[1])) for row in rows} == set(
        zip(expected["learning_rate"], expected["batch_size"], strict=True)
    )
    counts = {(float(row[0]), int(row[1])): float(row[-1].split(" ± ")[0]) for row in rows}
    for _, row in expected[expected["learning_rate"] != 0.01].iterrows():
        assert counts[row["learning_rate"], row["batch_size"]] == pytest.approx(row["count"], abs=1e-3)
    heads, *rows = page.tables["runs"]
    assert len(rows) == 12
    statuses = [row[heads.index("status")] for row in rows]
    assert [number for number, status in enumerate(statuses) if status != "finished"] == [3, 5]
    assert (statuses[3], statuses[5]) == ("not fitted", "diverged")
    assert [attributes.get("class") for attributes in page.of("tr")][-12:].count("marked") == 2
    assert "learning_rate=0.01 batch_size=32 seed=1" in page.text
    for fact in ("a device", "c" * 40, "sweep.py experiment=example", "1,000 training and 500 test images"):
        assert fact in page.text
    # 12 runs of 90 seconds; on 11 of them, two measurements of 10 seconds each.
    assert "18 min of training and 3 min 40 s of measuring" in page.text
    assert (directory / "report.html").stat().st_size < 8e6


def test_the_page_is_self_contained_and_its_references_resolve(tmp_path):
    _, page = make_report(
        tmp_path, measures=("accuracy", "parameter_norm"), snapshots=(0, 10), networks=("mlp", "small_cnn")
    )
    assert page.of("html")[0]["lang"] == "en"
    assert "example" in page.text
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    for attributes in page.of("a"):
        if attributes["href"].startswith("#"):
            assert attributes["href"][1:] in names
    for _, attributes in page.elements:
        for reference in ("aria-labelledby", "aria-describedby", "for", "data-table"):
            assert attributes.get(reference, names[0]) in names
        for link in ("src", "href"):
            assert "//" not in attributes.get(link, "")[:8]
    assert all(attributes["alt"] for attributes in page.of("img"))
    assert all(attributes["aria-sort"] == "none" for attributes in page.of("th"))
    assert len(page.of("caption")) == len(page.tables)
    plots = sum(attributes.get("class") == "plot" for attributes in page.of("div"))
    assert plots == 2 * CHARTS + 1  # those of each network, and both networks on one pair of axes
    assert {"overview", "correlations-1", "correlations-2", "ranking-1-0", "ranking-2-0"} <= set(page.tables)


def test_an_overview_has_every_network(tmp_path):
    networks = ("mlp", "small_cnn", "resnet18")
    directory = fake_sweeps.write_sweep(tmp_path, networks=networks, unfitted=(0, 1), failed=range(24, 36))
    sweep = collect.collect(plans.read(directory))
    cells = tables.overview(sweep).cells
    assert list(cells["model"]) == list(networks)
    assert "dataset" not in cells  # constant columns are dropped
    assert list(cells["runs"]) == ["12 of 12", "12 of 12", "0 of 12"]
    assert list(cells["fitted"]) == ["10", "12", "–"]
    tau = stats.kendalltau(averages()["count"], averages()["gap"]).statistic
    assert cells["kendall"][1] == f"{tau:.3f} (no interval)"
    gaps = [fake_sweeps.count_and_gap(*cell)[1] for cell in ((0.1, 32, 0), (0.001, 64, 0))]
    assert cells["test_accuracy %"][1] == f"{100 - 100 * max(gaps):.2f}–{100 - 100 * min(gaps):.2f}"


def test_every_format_has_the_published_figures_beside_ours(tmp_path):
    directory, page = make_report(tmp_path, networks=("mlp", "resnet18"), published={"line": "cifar10"})
    sweep = collect.collect(plans.read(directory))
    cells = statistic_tables.comparison(sweep).cells
    assert list(cells["published_pearson"]) == ["–", "0.98 (27)"]
    assert list(cells["published_kendall"]) == ["–", "0.85 (27)"]
    assert list(cells["published test accuracy %"]) == ["–", "63.8–84.3"]
    r = np.corrcoef(averages()["count"], averages()["gap"])[0, 1]
    assert list(cells["pearson"]) == 2 * [f"{r:.2f} (6)"]
    assert "comparison" in page.tables
    caption = "on digits, 1,000 training images, beside the paper's, with 95"
    for name in ("report.html", "tables.md", "tables.tex"):
        assert caption in html.unescape((directory / name).read_text())


def test_the_page_of_a_sweep_whose_runs_all_failed_lists_the_failures(tmp_path):
    directory, page = make_report(tmp_path, failed=range(12))
    assert "None of the 12 runs has finished." in page.text
    assert page.text.count("failed, ValueError: a reason") == 12
    assert len(page.tables["runs"]) == 13
    assert not any(attributes.get("class") == "plot" for attributes in page.of("div"))
    assert (directory / "tables.md").is_file()
    assert (directory.parent / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        pytest.param({"rates": (0.1,), "sizes": (32,), "seeds": (0,)}, 1, id="one run"),
        pytest.param({"rates": (0.1, 0.01), "sizes": (32,), "seeds": (0,)}, 1 + 3 + 3, id="one hyperparameter"),
        pytest.param({"subspaces": ()}, 2, id="no region counts"),
        pytest.param({"measures": ()}, 3, id="no accuracies"),
        pytest.param({"measures": (), "subspaces": ()}, 0, id="nothing measured"),
        pytest.param({"unfitted": range(12)}, CHARTS - 1, id="no run fitted"),  # no snapshots
        pytest.param({"diverged": range(12)}, 0, id="all diverged"),
    ],
)
def test_the_page_omits_what_was_not_measured(options, figures, tmp_path):
    directory, page = make_report(tmp_path, **options)
    assert sum(attributes.get("class") == "plot" for attributes in page.of("div")) == figures
    assert "nan" not in re.findall(r"\w+", page.text)
    assert len(page.tables["runs"]) == len(plans.read(directory).runs) + 1


def test_html_in_names_is_escaped(tmp_path):
    hostile = fake_sweeps.ENVIRONMENT | {"device": HOSTILE, "torch": HOSTILE, "commit": HOSTILE, "date": HOSTILE}
    options = {"data": fake_sweeps.data_facts(HOSTILE), "failed": (1,), "error": HOSTILE, "overrides": [f"a={HOSTILE}"]}
    directory, page = make_report(tmp_path, environment=hostile, snapshots=(0,), **options)
    scripts = page.of("script")
    charts = [attributes for attributes in scripts if attributes.get("type") == "application/json"]
    assert len(charts) == CHARTS
    assert len(scripts) - len(charts) == 2
    assert page.of("b") == []
    assert page.text.count(HOSTILE) >= 5
    index = Page(directory.parent / "index.html")
    assert len(index.of("script")) == 1
    assert HOSTILE in index.text
    assert "<script>" not in (directory / "tables.md").read_text()
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in directory.iterdir())


def test_markdown_and_csv_have_the_same_cells(tmp_path):
    directory, _ = make_report(tmp_path, data=fake_sweeps.data_facts("a|b\\*_c`"), measures=("accuracy", "parameter_norm"))
    blocks = (directory / "tables.md").read_text().split("\n\n")
    markdown_tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(markdown_tables) == 5  # configurations, correlations, reliability, ranking, other statistics
    for lines in markdown_tables:
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        assert len({len(row) for row in cells}) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_tables[0]]
    written = pd.read_csv(directory / "configurations.csv")
    assert [float(row[0]) for row in rows[2:]] == written["learning_rate"].tolist()
    assert [row[2] for row in rows[2:]] == ["2"] * 6
    expected = averages().sort_values(["learning_rate", "batch_size"])
    assert written["region_count_line"].tolist() == pytest.approx(expected["count"].tolist())
    assert written["generalization_gap"].tolist() == pytest.approx(expected["gap"].tolist())
    errors = [np.std([0, 0.05], ddof=1) / 2**0.5] * 6
    assert written["region_count_line_standard_error"].tolist() == pytest.approx(errors)
    assert [row[-1] for row in rows[2:]] == [f"{c:.3f} ± {e:.3f}" for c, e in zip(expected["count"], errors, strict=True)]


def test_special_characters_are_escaped_in_latex(tmp_path):
    directory, _ = make_report(
        tmp_path, data=fake_sweeps.data_facts("50 % of_A&B #1 {x} ~^\\ <|> $"), networks=("mlp", "small_cnn")
    )
    text = (directory / "tables.tex").read_text()
    for environment_name in ("table", "tabular"):
        assert text.count(f"\\begin{{{environment_name}}}") == text.count(f"\\end{{{environment_name}}}") == 4
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 4
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == 4
    assert all(re.fullmatch(r"tab:[\w.-]+", label) for label in labels)
    for alignment, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for row in body.split(r"\\")[:-1]:
            assert len(re.findall(r"(?<!\\)&", row)) == len(alignment) - 1
    # After all escape sequences are removed, no special character is left.
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}"):
        text = text.replace(known, "")
    text = text.replace(r"\textbar{}", "").replace(r"$\pm$", "").replace(r"$\rho$", "").replace(r"$\tau$", "")
    text = re.sub(r"undefined\$\^\{\d\}\$", "", text)  # numbers of notes
    text = re.sub(r"\\[&%$#_{}]", "", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert rows
    assert not any(re.search(r"[%$#_{}~^<>|]", row) or "\\" in row[:-2] or not row.isascii() for row in rows)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_compiles_whatever_the_names_are(tmp_path):
    letters = [chr(code) for code in range(0x3000) if chr(code).isprintable()]
    written = [letter for letter in letters if not markup.escape_latex(letter).startswith("U+")]
    assert set(written) >= {*map(chr, range(0x20, 0x7F)), *"äÖß±−–ρτ"}
    name = f"[50 % of *A&B --x {' '.join(written)} 日本語 🙂"
    directory, _ = make_report(
        tmp_path, data=fake_sweeps.data_facts(name), rates=(0.1, 0.01), sizes=(32,), networks=("mlp", "vgg19")
    )
    text = (directory / "tables.tex").read_text()
    cells = pd.DataFrame({"data": ["[x]", "*y", "-0.5", name], "r": ["undefined: 1 configuration, 3 are needed"] * 4})
    table = tables.Table("n", name, cells, {"data": name, "r": "r"}, frozenset("r"))
    document = rf"""
\documentclass{{article}}
\usepackage{{booktabs,graphicx}}
\begin{{document}}
{text}
{markup.latex(table, "brackets")}
\end{{document}}
"""
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "paper.tex"]
    compiled = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert compiled.returncode == 0, [line for line in compiled.stdout.splitlines() if line.startswith("!")]
    wide = re.findall(r"Overfull \\hbox.*", compiled.stdout)
    assert not wide
    assert text.count("3 are needed") == text.count(r"\footnotesize") > 0


def test_a_spreadsheet_evaluates_no_cell(tmp_path):
    formula = "=HYPERLINK(1)"
    directory, _ = make_report(
        tmp_path, data=fake_sweeps.data_facts(formula), networks=("mlp", "vgg19"), failed=(0,), error="@x"
    )
    for path in directory.glob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))]
        assert all(math.isfinite(float(cell)) for cell in cells), path
    assert pd.read_csv(directory / "runs.csv")["dataset"].unique() == [f"'{formula}"]


def test_a_picture_that_is_a_link_is_not_embedded(tmp_path):
    directory, _ = make_report(tmp_path)
    picture, elsewhere = directory / "decision_regions.png", tmp_path / "elsewhere.png"

    def embedded() -> list[str]:
        report.report(directory)
        sources = [image["src"] for image in Page(directory / "report.html").of("img")]
        return [source for source in sources if source.startswith("data:")]

    picture.write_bytes(DOT)
    assert len(embedded()) == 1
    picture.rename(elsewhere)
    picture.symlink_to(elsewhere)
    assert not embedded()
    picture.unlink()
    picture.write_text("not a picture")
    assert not embedded()


def test_the_index_lists_every_sweep_with_the_latest_first(tmp_path):
    make_report(tmp_path, name="older")
    make_report(tmp_path, name="newer", environment=fake_sweeps.ENVIRONMENT | {"date": "2027-01-01T00:00:00+00:00"})
    fake_sweeps.write_sweep(tmp_path, name="unreported")
    fake_sweeps.write_sweep(tmp_path, name="odd")
    files.write_json(tmp_path / "sweeps/odd-00000000/report.json", {"name": 3})
    report.write_index(tmp_path / "sweeps")
    page = Page(tmp_path / "sweeps" / "index.html")
    _, *rows = page.tables["sweeps"]
    assert [row[0] for row in rows[:2]] == ["newer", "older"]
    assert {row[0] for row in rows[2:]} == {"odd-00000000", "unreported-00000000"}
    assert rows[0][1:5] == ["2027-01-01", "digits", "mlp", "12 of 12"]
    assert "Kendall's tau" in rows[0][5]
    links = [attributes["href"] for attributes in page.of("a")]
    assert {"newer-00000000/report.html", "older-00000000/report.html"} <= set(links)


def test_a_report_can_be_rewritten_after_the_results_were_moved(tmp_path, capsys):
    directory, _ = make_report(tmp_path / "old")
    first = pd.read_csv(directory / "runs.csv")
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = tmp_path / "new" / "sweeps" / directory.name
    for path in moved.glob("*.*"):
        if path.name != "plan.json":
            path.unlink()
    assert report.main([str(moved.parent)]) == 0
    again = pd.read_csv(moved / "runs.csv")
    pd.testing.assert_frame_equal(first.drop(columns="directory"), again.drop(columns="directory"))
    assert all(Path(path).is_dir() for path in again["directory"])
    (tmp_path / "link").symlink_to(moved)
    assert report.main([str(tmp_path / "link")]) == 0
    assert set(pd.read_csv(moved / "runs.csv")["status"]) == {"finished"}
    assert capsys.readouterr().err == ""


DAMAGES = {
    "not JSON": lambda record: "{",
    "a list": lambda record: "[]",
    "an older version": lambda record: record | {"format": 1},
    "no runs": lambda record: record | {"runs": []},
    "runs of another type": lambda record: record | {"runs": [3]},
    "a run's name that is a path": lambda record: record | {"runs": [record["runs"][0] | {"name": "../x"}]},
    "an invalid identity": lambda record: record | {"runs": [record["runs"][0] | {"identity": "*"}]},
    "an invalid data set": lambda record: record | {"runs": [record["runs"][0] | {"dataset": 7}]},
    "an unknown option": lambda record: record | {"runs": [record["runs"][0] | {"config": {"nonsense": 1}}]},
    "values that are not strings": lambda record: record | {"runs": [record["runs"][0] | {"varied": {"seed": 1}}]},
    "an absolute path": lambda record: record | {"results": "/"},
    "a sweep's name that is a path": lambda record: record | {"name": "../x"},
    "no classes": lambda record: record | {"datasets": [record["datasets"][0] | {"classes": []}]},
    "overrides that are numbers": lambda record: record | {"overrides": [1]},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_invalid_plan_is_a_one_line_error(damage, tmp_path, capsys):
    directory = fake_sweeps.write_sweep(tmp_path, rates=(0.1,), sizes=(32,), seeds=(0,))
    damaged = DAMAGES[damage](files.read_json(directory / "plan.json"))
    if isinstance(damaged, dict):  # a file from elsewhere, with a valid checksum
        files.write_json(directory / "plan.json", damaged)
    else:
        (directory / "plan.json").write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    before = sorted(tmp_path.rglob("*"))
    assert report.main([str(directory)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "plan.json" in output.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_without_a_sweep_is_a_one_line_error(tmp_path, capsys):
    command = [sys.executable, "-m", "regioncount.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    for arguments in ([str(tmp_path / "nowhere")], ["--nonsense"]):
        assert report.main(arguments) == 2
        output = capsys.readouterr()
        assert (output.out, len(output.err.splitlines())) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_each_measuring_setting_is_a_group(tmp_path):
    """Two resolutions of one grid of runs make two sections, each with all runs."""
    directory = fake_sweeps.write_sweep(tmp_path)
    record = files.read_json(directory / "plan.json")
    cells = record["runs"]
    record["runs"] = [
        cell | {"varied": cell["varied"] | {"resolution": str(points)}, "config": _with_resolution(cell["config"], points)}
        for points in (200, 201)
        for cell in cells
    ]
    files.write_json(directory / "plan.json", record)
    assert report.main([str(directory)]) == 0
    groups = collect.collect(plans.read(directory)).groups
    assert [group.title for group in groups] == ["digits, mlp, resolution 200", "digits, mlp, resolution 201"]
    page = Page(directory / "report.html")
    assert {"correlations-1", "configurations-1", "configurations-2"} <= set(page.tables)
    with open(directory / "correlations.csv") as file:
        assert {row["resolution"] for row in csv.DictReader(file)} == {"200", "201"}


def _with_resolution(config, points):
    return config | {"regions": config["regions"] | {"line": config["regions"]["line"] | {"resolution": points}}}


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "wandb"):
            raise ImportError(f"{name} cannot be imported")

sys.meta_path.insert(0, Blocked())
from regioncount.reporting import charts, collect, page, plots, published, tables
from regioncount.reporting.report import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_report_needs_no_torch(tmp_path):
    networks, measures = ("mlp", "resnet18"), ("accuracy", "parameter_norm")
    options = {"snapshots": (0, 10), "published": {"line": "cifar10"}, "networks": networks, "measures": measures}
    directory = fake_sweeps.write_sweep(tmp_path, **options)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.stem for path in directory.glob("*.csv")} >= {"runs", "ranking", "comparison", "early"}
    assert (directory / "heat_maps_mlp.png").read_bytes().startswith(b"\x89PNG")


def test_stored_labels_and_units_of_measures_are_printed(tmp_path):
    """The plugin that stored them is not needed. Invalid descriptions are ignored."""
    directory = fake_sweeps.write_sweep(tmp_path, measures=("accuracy", "parameter_norm", "sharpness"))
    for number, path in enumerate(sorted(tmp_path.glob("runs/*/measures.json"))):
        record = files.read_json(path)
        for entry in record["entries"].values():
            if "parameter_norm" in entry["values"]:
                entry["columns"] = {
                    "parameter_norm": {"label": "norm $ of <b>", "unit": "metres"},
                    "second": {"label": "2nd"},
                }
                entry["values"]["second"] = float(number)
            if "sharpness" in entry["values"]:
                entry["columns"] = {"sharpness": {"label": 3, "unit": ["x"]}, "absent": "nonsense"}
        files.write_json(path, record)
    report.report(directory)
    page = Page(directory / "report.html")
    _, *rows = page.tables["ranking-1-0"]
    assert {row[0] for row in rows} == {
        "region count (line)",
        "region entropy (line)",
        "train loss",
        "norm $ of <b> (metres)",
        "2nd",
        "sharpness",
    }
    assert page.of("b") == []
    ranking = pd.read_csv(directory / "ranking.csv")
    assert {"parameter_norm", "second", "sharpness"} < set(ranking["measure"])


def test_bounds_are_not_region_counts():
    columns = ResultColumns(("line", "line_at_least"), ("parameter_norm",))
    statistics = ["region_count_line_standard_error", "region_count_line_at_most", "region_share_one_line", "test_error"]
    table = pd.DataFrame(columns=["region_count_line", *statistics, "region_entropy_line", "parameter_norm", "train_loss"])
    assert [column.key for column in columns.region_counts(table)] == ["region_count_line"]
    assert columns.measures_of(table) == ["region_count_line", "region_entropy_line", "train_loss", "parameter_norm"]
    assert columns.measures_of(table.drop(columns="parameter_norm")) == ["region_count_line", "region_entropy_line"]
    # The name of a subspace may end like a bound.
    assert columns["region_count_line_at_least"].subspace == "line_at_least"


def test_decision_regions_are_drawn_only_if_models_can_be_evaluated(tmp_path):
    directory, evaluated = fake_sweeps.write_sweep(tmp_path, rates=tuple(10.0**-power for power in range(1, 8))), []

    def evaluate(planned):
        evaluated.append(planned.varied)
        return np.zeros((4, 4), int), np.zeros((3, 2))

    assert report.report(directory, decision_regions=evaluate) == 0
    assert (directory / "decision_regions.png").is_file()
    assert [float(varied["learning_rate"]) for varied in evaluated] == [1e-7, 1e-5, 1e-4, 1e-3, 1e-1]
    assert len({(varied["batch_size"], varied["seed"]) for varied in evaluated}) == 1
    before = (directory / "decision_regions.png").stat().st_mtime_ns
    report.report(directory)
    assert (directory / "decision_regions.png").stat().st_mtime_ns == before


def git(directory, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_name_of_a_processor_is_that_of_the_system():
    name, _, threads = environment.device_name(torch.device("cpu")).rpartition(", ")
    assert threads == f"{torch.get_num_threads()} threads"
    if (cpuinfo := Path("/proc/cpuinfo")).is_file() and "model name" in cpuinfo.read_text():
        assert f": {name}\n" in cpuinfo.read_text()
    else:
        assert name


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_recorded_commit_is_that_of_the_package(tmp_path):
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert environment.commit(package) is None
    git(tmp_path / "checkout", "init", "--quiet")
    assert environment.commit.__wrapped__(package) is None  # inside a repository, but not tracked
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "--quiet", "--message", "first")
    head = git(tmp_path / "checkout", "rev-parse", "HEAD")
    assert environment.commit.__wrapped__(package) == head
    (package / "__init__.py").write_text("changed = True")
    assert environment.commit.__wrapped__(package) == f"{head}-dirty"


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit.__wrapped__(tmp_path) is None


def test_cells_are_read_one_by_one_from_the_plan(tmp_path):
    """Lines have a fixed length and agree with the plan, whatever the length and alphabet of names."""
    directory = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 1e-17), networks=("mlp", "réseau"), failed=range(16))
    plan = plans.read(directory)
    for run, line in zip(plan.runs, plans.line_numbers(plan), strict=True):
        cell, cells = plans.read_cell(directory, line)
        assert (cell["identity"], cell["varied"], cells) == (run.identity, run.varied, len(plan.runs))


def test_the_lines_of_cells_do_not_depend_on_the_order_of_the_grid(tmp_path):
    directory = fake_sweeps.write_sweep(tmp_path, rates=(0.1, 1e-17), networks=("mlp", "réseau"), failed=range(16))
    plan = plans.read(directory)
    cells = [plans.read_cell(directory, line) for line in range(len(plan.runs))]
    order = np.random.default_rng(0).permutation(len(plan.runs))
    runs = [plan.runs[number] for number in order]
    other = replace(plan, runs=[replace(run, varied=dict(reversed(run.varied.items()))) for run in runs])
    plans.write(other)
    assert [plans.read_cell(directory, line) for line in range(len(plan.runs))] == cells
    positions = plans.line_numbers(plan)
    assert plans.line_numbers(other) == [positions[number] for number in order]
