"""A report is not made again if nothing that it depends on has changed."""

import json

import pytest

import regioncount as rc
from regioncount.reporting import unchanged
from regioncount.runs import files, plans

TINY = ["dataset.train_size=60", "model=mlp", "model.width=8", "epochs=1", "regions.line.number=3", "tracker=disabled"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unchanged")
    rc.sweep([*TINY, "optimizer.learning_rate=0.1,0.01", f"results={folder}", "hydra/launcher=basic"])
    return folder


def repeat(results, *options):
    """Run the sweep again; return whether the report was made again."""
    page = next(results.glob("sweeps/*/report.html"))
    before = page.stat().st_mtime_ns
    rc.sweep([*TINY, "optimizer.learning_rate=0.1,0.01", f"results={results}", "hydra/launcher=basic", *options])
    return page.stat().st_mtime_ns != before


def test_the_same_tables_are_printed_without_making_the_report(results, capsys):
    summary = files.read_json(next(results.glob("sweeps/*/report.json")))
    assert not repeat(results)
    printed = capsys.readouterr().out
    assert "\n".join(summary["printed"]) in printed
    assert "Kendall's tau" in printed
    assert printed.rstrip().endswith("(unchanged)")
    assert printed.count("(already complete)") == 2


@pytest.mark.parametrize("name", ["report.html", "heat_maps.pdf", "runs.csv", "report.json"])
def test_a_file_that_is_missing_is_made_again(results, name):
    file = next(results.glob(f"sweeps/*/{name}"))
    file.unlink() if name != "report.html" else file.write_text("shorter")
    assert repeat(results)
    assert file.is_file()
    assert not repeat(results)


def test_the_report_is_made_again_after_a_change_of_a_run(results):
    file = next(results.glob("runs/*/measures.json"))
    content = files.read_json(file)
    text = json.dumps(content).replace('"test_accuracy": 0.', '"test_accuracy": 0.1', 1)
    files.write_json(file, json.loads(text))
    directory = next(results.glob("sweeps/*/plan.json")).parent
    try:
        assert unchanged.printed_before(directory, unchanged.inputs_digest(plans.read(directory))) is None
    finally:
        files.write_json(file, content)
    assert not repeat(results)


def test_the_digest_ignores_the_date_of_the_plan_and_nothing_else(results):
    directory = next(results.glob("sweeps/*/plan.json")).parent
    plan = plans.read(directory)
    digest = unchanged.inputs_digest(plan)
    plan.environment["date"] = "another"
    assert unchanged.inputs_digest(plan) == digest
    plan.environment["torch"] = "another"
    assert unchanged.inputs_digest(plan) != digest
