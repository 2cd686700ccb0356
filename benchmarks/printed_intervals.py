"""Compute intervals of correlations from the averages by configuration that a page of results prints.

python benchmarks/printed_intervals.py results/published/small/*.md

For pages whose runs were not kept. It prints Kendall's tau, Pearson's r and their 95 % intervals of each region count and
the generalization gap, for each setting that the page compares.
"""

import argparse
import re
from pathlib import Path

import pandas as pd

from regioncount.analysis import correlations

GAP = "generalization gap (percentage points)"


def tables(text: str) -> list[pd.DataFrame]:
    """Return the tables of a Markdown page, as text."""
    found = []
    for block in re.findall(r"(?m)(?:^\|.*\n?)+", text):
        header, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        found.append(pd.DataFrame(rows, columns=pd.Index(header)))
    return found


def printed_correlations(text: str) -> pd.DataFrame:
    """Return the correlations of each region count on a page with the gap; empty if the page has no configurations."""
    found = tables(text)
    overview = next((list(table) for table in found if next(iter(table)) == "network" and "runs" in table), [])
    settings = overview[1 : overview.index("runs")] if overview else []
    configurations = next((table for table in found if GAP in table and "runs" in table), pd.DataFrame())
    results = []
    for names, rows in configurations.groupby(settings) if settings and len(configurations) else [((), configurations)]:
        for count in (name for name in map(str, rows) if name.startswith("region count (")):
            gap, mean = pd.to_numeric(rows[GAP]) / 100, rows[count].str.split().str[0].astype(float)
            runs = pd.DataFrame({"configuration": range(len(rows)), "count": mean.array, "gap": gap.array})
            runs = runs.assign(train_accuracy=1.0, test_accuracy=1 - runs["gap"])  # whose gap is the printed one
            result = correlations(runs, ["count"], ["generalization_gap"], ["configuration"]).iloc[0]
            results.append({"measure": count, "setting": " ".join(map(str, names)), **result.drop(["measure", "target"])})
    return pd.DataFrame(results)


def main() -> None:
    """Print one line for each page, region count and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    for page in parser.parse_args().pages:
        for _, row in printed_correlations(page.read_text(encoding="utf-8")).iterrows():
            texts = [
                f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]".replace(" [nan, nan]", "")
                for name in ("kendall", "pearson")
            ]
            print(page.stem, row["measure"], row["setting"], *texts, f"({row['configurations']})")


if __name__ == "__main__":
    main()
