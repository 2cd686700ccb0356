"""Rank the measures of a CSV file of runs.

python -m regioncount.analysis runs.csv --measures region_count_line

For each target, it prints every statistic of every measure and, if there are several measures, their multiple
regression. If configurations have several seeds, it prints the reliability of their averages. An invalid option or file is
reported in one line on standard error with exit status 2; nothing is written.
"""

import argparse
import os
import secrets
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd

from regioncount import __version__
from regioncount.analysis.granulated import granulated_kendall
from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS
from regioncount.analysis.ranking import describe_ranking, ranking
from regioncount.analysis.regression import describe_regression, regression
from regioncount.analysis.reliability import describe_reliability, reliability
from regioncount.analysis.selection import ROUNDING, SELECTIONS, numbers, select
from regioncount.errors import InputError, one_line, say
from regioncount.spreadsheet import to_csv

TABLES = ("ranking", "granulated_kendall", "regression", "reliability")
MAX_TEST_SIZE = 10**12
MISSING = ("nan", "NaN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None")  # in columns of numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line; by default, sys.argv[1:].

    Returns:
        The exit status.
    """
    try:
        text = _analyse(_parse(arguments))
    except InputError as error:
        say(f"regioncount.analysis: {one_line(error)}", sys.stderr)
        return 2
    if not say(text):
        say("regioncount.analysis: the result could not be printed", sys.stderr)
        return 1
    return 0


def _analyse(options: argparse.Namespace) -> str:
    """Write the tables if --out is given, and return the text to print."""
    if options.out is not None:
        _check_output(options.out, options.file)
    runs = select(_read(options), options.select)
    if runs.empty:
        selected = "runs" if options.select == "all" else f"{options.select} runs; choose others with --select"
        raise InputError(f"{options.file} has no {selected}")
    measures, targets, group_by = options.measures, options.targets, options.group_by
    common = {"group_by": group_by, "keep_seeds": options.keep_seeds}
    compared = {"test_size": options.test_size, "reference": options.reference}
    regressions = [regression(runs, measures, target, **common) for target in targets]  # quickly refuses invalid measures
    rankings = [ranking(runs, measures, target, **compared, **common) for target in targets]
    seeds = reliability(runs, measures, targets, group_by, within=options.within)
    if options.out is not None:
        granulated = granulated_kendall(runs, measures, targets, **common)
        tables = {"ranking": pd.concat(rankings), "granulated_kendall": granulated, "regression": pd.concat(regressions)}
        _write(tables | {"reliability": seeds}, options.out)
    texts = [describe_ranking(table) for table in rankings]
    texts += [describe_regression(table) for table in regressions if len(measures) > 1]
    if options.within or (seeds["runs"] > seeds["configurations"]).any():
        texts.append(describe_reliability(seeds))
    return "\n\n".join(texts)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; repeated measures, targets and hyperparameters are listed once."""
    parser = _Parser(prog="python -m regioncount.analysis", description="Rank the measures of a table of runs.")
    parser.add_argument("--version", action="version", version=f"regioncount {__version__}")
    parser.add_argument("file", type=Path, help="a CSV file with one row per run")
    parser.add_argument(
        "--measures", nargs="+", required=True, metavar="COLUMN", help="columns to correlate with the targets"
    )
    parser.add_argument(
        "--targets", nargs="+", default=list(TARGETS), metavar="COLUMN", help=f"default: {' '.join(TARGETS)}"
    )
    parser.add_argument("--reference", metavar="COLUMN", help="compare measures with this one; default: the first")
    parser.add_argument("--train-accuracy", default="train_accuracy", metavar="COLUMN", help="default: train_accuracy")
    parser.add_argument("--test-accuracy", default="test_accuracy", metavar="COLUMN", help="default: test_accuracy")
    parser.add_argument(
        "--unit", choices=("fraction", "percent"), default="fraction", help="unit of the accuracies; default: fraction"
    )
    default = " ".join(HYPERPARAMETERS)
    parser.add_argument("--group-by", nargs="+", default=list(HYPERPARAMETERS), metavar="COLUMN", help=f"default: {default}")
    parser.add_argument(
        "--within", nargs="+", default=[], metavar="COLUMN", help="hyperparameters that the reliability holds fixed"
    )
    parser.add_argument("--keep-seeds", action="store_true", help="use each run as an observation; default: average seeds")
    parser.add_argument("--select", choices=SELECTIONS, default="all", help="the runs to use; default: all")
    parser.add_argument(
        "--test-size", type=_count, metavar="N", help="number of test examples, for the weights of the sign-error"
    )
    parser.add_argument(
        "--out", type=_path, metavar="PATH", help="write the ranking to a .csv file, or all tables to a directory"
    )
    options = parser.parse_args(arguments)
    for name in ("measures", "targets", "group_by", "within"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    return options


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("give a path")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text[:40]) > MAX_TEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text:.40}: give a whole number up to {MAX_TEST_SIZE:,}")
    return int(text)


def _read(options: argparse.Namespace) -> pd.DataFrame:
    """Return the table with train_accuracy and test_accuracy as fractions."""
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            runs = _as_numbers(pd.read_csv(options.file, index_col=False, keep_default_na=False, na_values=[""]))
        header = pd.read_csv(options.file, header=None, nrows=1).iloc[0]
    except pd.errors.ParserWarning as error:
        raise InputError(f"{options.file}: rows have more fields than the header") from error
    except OSError as error:
        raise InputError(f"{options.file} cannot be read: {error.strerror}") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{options.file} is not a CSV table: {error}") from error
    if duplicates := header[header.duplicated()].dropna().tolist():
        raise InputError(f"{options.file} has several columns {duplicates[0]}: give each column a name of its own")
    names = ", ".join(map(str, runs))
    accuracies = {"train_accuracy": options.train_accuracy, "test_accuracy": options.test_accuracy}
    for name, column in accuracies.items():
        if column not in runs:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{options.file} has no column {column}; name another with {option}; it has {names}")
    for name in ("measures", "targets", "group_by"):
        required = [column for column in getattr(options, name) if column not in (*TARGETS, *accuracies)]
        if missing := [column for column in required if column not in runs]:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{options.file} has no column {', '.join(missing)} ({option}); it has {names}")
    columns = {name: numbers(runs, column) for name, column in accuracies.items()}
    limit = 1 if options.unit == "fraction" else 100
    for name, column in accuracies.items():
        values = columns[name]
        if options.unit == "fraction" and 1 + ROUNDING < values.max() <= 100:
            raise InputError(
                f"{column} has values up to {values.max():g}: fractions are expected; for percent, pass --unit percent"
            )
        if options.unit == "percent" and values.max() <= 1:
            raise InputError(
                f"{column} has no value above {values.max():g}: percent is expected; for fractions, pass --unit fraction"
            )
        if values.min() < 0 or values.max() > limit * (1 + ROUNDING):
            raise InputError(
                f"{column} has values from {values.min():g} to {values.max():g}: accuracies must be from 0 to {limit}"
            )
    return runs.assign(**{name: (values / limit).clip(upper=1) for name, values in columns.items()})


def _as_numbers(runs: pd.DataFrame) -> pd.DataFrame:
    """Convert columns of numbers in which words stand for missing values; in columns of text, such words are values."""
    for name in runs.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in runs.dtypes]]:
        present = runs[name].notna() & ~runs[name].isin(MISSING)
        values = pd.to_numeric(runs[name].where(present), errors="coerce")
        if values[present].notna().all():
            runs[name] = values
    return runs


def _check_output(path: Path, table: Path) -> None:
    """Raise InputError, before anything is computed, if the output cannot be written or would replace the table."""
    written = [path] if path.suffix == ".csv" else [path / f"{name}.csv" for name in TABLES]
    if any(output.exists() and table.exists() and output.samefile(table) for output in written):
        raise InputError(f"--out {path} would replace the table {table}: choose another name")
    if path.suffix == ".csv" and path.is_dir():
        raise InputError(f"--out {path} is a directory with the name of a .csv file: choose another name")
    if path.suffix != ".csv" and path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file without the ending .csv: choose a .csv file or a directory")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no directory {path.parent}")


def _write(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Write the ranking to a .csv file, or all tables to a directory."""
    try:
        if path.suffix == ".csv":
            _write_atomically(tables["ranking"], path)
            return
        path.mkdir(exist_ok=True)
        for name, table in tables.items():
            _write_atomically(table, path / f"{name}.csv")
    except OSError as error:
        raise InputError(f"--out {path} cannot be written: {error.strerror}") from error


def _write_atomically(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV. At any time, the file has either its old content or all of the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "x", encoding="utf-8", newline="") as file:  # "x" never opens an existing file or link
            file.write(to_csv(table))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
