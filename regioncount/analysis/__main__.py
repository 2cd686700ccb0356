"""Rank the measures of a CSV file of runs: python -m regioncount.analysis runs.csv --measures region_count_line

Prints, for each target, the ranking of the measures by every statistic, and for several measures their multiple regression.
A mistake is one line on standard error and exit status 2, before anything is written.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from regioncount.analysis.granulated import granulated_kendall
from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS
from regioncount.analysis.ranking import describe_ranking, ranking
from regioncount.analysis.regression import describe_regression, regression
from regioncount.analysis.selection import SELECTIONS, numbers, select
from regioncount.errors import InputError, one_line


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        for name in ("measures", "targets", "group_by"):
            setattr(options, name, list(dict.fromkeys(getattr(options, name))))
        if options.out:
            _check_output(options.out)
        runs = select(_read(options), options.select)
        if runs.empty:
            chosen = "runs" if options.select == "all" else f"{options.select} runs, choose others with --select"
            raise InputError(f"{options.file} has no {chosen}")
        common = {"group_by": options.group_by, "keep_seeds": options.keep_seeds}
        rankings = [
            ranking(runs, options.measures, target, test_size=options.test_size, **common) for target in options.targets
        ]
        regressions = [regression(runs, options.measures, target, **common) for target in options.targets]
        texts = [describe_ranking(table) for table in rankings]
        texts += [describe_regression(table) for table in regressions if len(options.measures) > 1]
        if options.out:
            granulated = granulated_kendall(runs, options.measures, options.targets, **common)
            tables = {"ranking": pd.concat(rankings), "granulated_kendall": granulated, "regression": pd.concat(regressions)}
            _write(tables, options.out)
        print("\n\n".join(texts))
    except InputError as error:
        print(f"regioncount.analysis: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise InputError(f"{message} (--help lists the options)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m regioncount.analysis", description="Rank the measures of a table of runs.")
    parser.add_argument("file", type=Path, help="a CSV file with a row a run")
    parser.add_argument("--measures", nargs="+", required=True, metavar="COLUMN", help="what to correlate with the targets")
    parser.add_argument(
        "--targets", nargs="+", default=list(TARGETS), metavar="COLUMN", help=f"default: {' '.join(TARGETS)}"
    )
    parser.add_argument("--train-accuracy", default="train_accuracy", metavar="COLUMN", help="default: train_accuracy")
    parser.add_argument("--test-accuracy", default="test_accuracy", metavar="COLUMN", help="default: test_accuracy")
    parser.add_argument(
        "--unit", choices=("fraction", "percent"), default="fraction", help="of the accuracies; default: fraction"
    )
    default = " ".join(HYPERPARAMETERS)
    parser.add_argument("--group-by", nargs="+", default=list(HYPERPARAMETERS), metavar="COLUMN", help=f"default: {default}")
    parser.add_argument("--keep-seeds", action="store_true", help="every run an observation; default: seeds are averaged")
    parser.add_argument("--select", choices=SELECTIONS, default="all", help="which runs; default: all")
    parser.add_argument("--test-size", type=int, metavar="N", help="test examples, for the noise weights of the sign-error")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="write the ranking to a .csv file, or all tables to a directory"
    )
    return parser


def _read(options: argparse.Namespace) -> pd.DataFrame:
    """The table, accuracies under their usual names and as fractions."""
    try:
        runs = pd.read_csv(options.file)
    except OSError as error:
        raise InputError(f"{options.file} cannot be read: {error.strerror}") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{options.file} is not a table in CSV: {error}") from error
    accuracies = {"train_accuracy": options.train_accuracy, "test_accuracy": options.test_accuracy}
    for name, column in accuracies.items():
        if column not in runs:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{options.file} has no column {column}, name it with {option}; it has {', '.join(runs)}")
    for name in ("measures", "targets", "group_by"):
        wanted = [column for column in getattr(options, name) if column not in (*TARGETS, *accuracies)]
        if missing := [column for column in wanted if column not in runs]:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{options.file} has no column {', '.join(missing)} ({option}); it has {', '.join(runs)}")
    columns = {name: numbers(runs, column) for name, column in accuracies.items()}
    limit = 1 if options.unit == "fraction" else 100
    for name, column in accuracies.items():
        values = columns[name]
        if options.unit == "fraction" and 1 < values.max() <= 100:
            raise InputError(
                f"{column} has values up to {values.max():g}: fractions are expected, for percent say --unit percent"
            )
        if options.unit == "percent" and values.max() <= 1:
            raise InputError(
                f"{column} has no value above {values.max():g}: percent is expected, for fractions say --unit fraction"
            )
        if values.min() < 0 or values.max() > limit:
            raise InputError(f"{column} has values from {values.min():g} to {values.max():g}: no accuracy in {options.unit}")
    return runs.assign(**{name: values / limit for name, values in columns.items()})


def _check_output(path: Path) -> None:
    """Refuse where nothing can be written before anything is computed."""
    if path.suffix == ".csv" and path.is_dir():
        raise InputError(f"--out {path} is a directory, and named like a file")
    if path.suffix != ".csv" and path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file, but not named .csv: name a .csv file or a directory")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no directory {path.parent}")


def _write(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """The ranking to a .csv file, or all tables to a directory; each whole or not at all."""
    try:
        if path.suffix == ".csv":
            _write_whole(tables["ranking"], path)
            return
        path.mkdir(exist_ok=True)
        for name, table in tables.items():
            _write_whole(table, path / f"{name}.csv")
    except OSError as error:
        raise InputError(f"--out {path} cannot be written: {error.strerror}") from error


def _write_whole(table: pd.DataFrame, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        table.to_csv(beside, index=False)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
