"""Whether a sweep's report would be what it is already, so that it need not be made again.

A report is recorded in report.json with a digest of all that it depends on, its files, and what it printed.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import regioncount
from regioncount.errors import InputError
from regioncount.runs import files, plans, store
from regioncount.runs.plans import Plan

SUMMARY = "report.json"
PACKAGES = ("matplotlib", "numpy", "pandas", "plotly", "scipy")
NOT_WRITTEN_BY_REPORTS = (SUMMARY, plans.FILE, plans.CELLS)


def inputs_digest(plan: Plan) -> str:
    """Return a SHA-256 hash, in hexadecimal, of the plan, of its runs on disk, and of the code that makes reports.

    The date of the plan is left out, since repeating a sweep changes it.
    """
    digest = hashlib.sha256()

    def add(name: object, content: bytes) -> None:
        digest.update(f"{name}\0{len(content)}\0".encode() + content)

    package = Path(regioncount.__file__).parent
    for file in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".pyo")):
        add(file.relative_to(package), file.read_bytes())
    for name in PACKAGES:
        add(name, version(name).encode())
    record = plans.as_record(plan)
    record["environment"] = {key: value for key, value in record["environment"].items() if key != "date"}
    add(plans.FILE, json.dumps(record).encode())
    folders = {store.run_directory(Path(run.config.results), run.name, run.identity) for run in plan.runs}
    for folder in (*sorted(folders), plan.directory / "failures"):
        for file in sorted(folder.glob("*")):
            if file.is_file() and file.suffix != ".pt":  # weights do not change once they are written
                add(file.relative_to(folder.parent), file.read_bytes())
    return digest.hexdigest()


def record(directory: Path, inputs: str, printed: str) -> None:
    """Record in a report's summary what it was made from, and what it printed.

    Args:
        directory: The sweep's directory.
        inputs: The `inputs_digest` from before the report was made.
        printed: The text.
    """
    summary = files.read_json(directory / SUMMARY)
    files.write_json(
        directory / SUMMARY, summary | {"inputs": inputs, "printed": printed.split("\n"), "files": _sizes(directory)}
    )


def printed_before(directory: Path, inputs: str) -> str | None:
    """Return what the report on disk printed if it was made from the same inputs and its files are there; otherwise None."""
    try:
        summary = files.read_json(directory / SUMMARY)
    except InputError:
        return None
    same = summary.get("inputs") == inputs and summary.get("files") == _sizes(directory)
    return "\n".join(summary["printed"]) if same else None


def _sizes(directory: Path) -> dict[str, int]:
    """Return the sizes of a report's files by their names."""
    written = [path for path in directory.glob("*") if path.is_file() and path.name not in NOT_WRITTEN_BY_REPORTS]
    return {path.name: path.stat().st_size for path in sorted(written)}
