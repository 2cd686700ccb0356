"""Intervals of constant label on lines. Positions are fractions of a line: 0 is its first vertex, 1 its second."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Crossings closer together than this fraction of the line are merged: rounding cannot order them.
MIN_LENGTH = 1e-12

# Intervals separated by less than this fraction of the line touch.
MIN_GAP = 10 * MIN_LENGTH


class Intervals(NamedTuple):
    """N intervals of constant label."""

    line: np.ndarray
    """int64 (N,): the line of each interval."""
    start: np.ndarray
    """float64 (N,)"""
    stop: np.ndarray
    """float64 (N,)"""
    label: np.ndarray
    """int64 (N,)"""


def merge_intervals(parts: Sequence[Intervals]) -> Intervals:
    """Sort intervals along each line and merge neighbours of equal label that touch.

    Args:
        parts: Intervals that do not overlap, in any order.

    Returns:
        Intervals in order. If two of them touch, the first stops exactly where the second starts.
    """
    line, start, stop, label = map(np.concatenate, zip(*parts, strict=True))
    order = np.lexsort((start, line))
    return merge_sorted(Intervals(line[order], start[order], stop[order], label[order]))


def merge_sorted(intervals: Intervals) -> Intervals:
    """Merge neighbours of equal label that touch.

    Args:
        intervals: Intervals in order along each line.

    Returns:
        Intervals as from `merge_intervals`; those shorter than `MIN_LENGTH` are dropped.
    """
    line, start, stop, label = intervals
    long = stop - start > MIN_LENGTH
    line, start, stop, label = line[long], start[long], stop[long], label[long]
    touching = (line[1:] == line[:-1]) & (start[1:] - stop[:-1] < MIN_GAP)
    is_first = np.append(True, ~touching | (label[1:] != label[:-1]))[: len(line)]
    is_last = np.append(is_first[1:], True)[: len(line)]
    line, label, start, stop = line[is_first], label[is_first], start[is_first], stop[is_last]
    touching = (line[1:] == line[:-1]) & (start[1:] - stop[:-1] < MIN_GAP)
    stop[:-1] = np.where(touching, start[1:], stop[:-1])
    return Intervals(line, start, stop, label)


def find_gaps(intervals: Intervals, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the parts of lines that intervals leave uncovered.

    Args:
        intervals: Intervals in order along each line.
        number: Number of lines.

    Returns:
        Line, start and stop of each gap, (G,) each.
    """
    # Add an empty interval at each end of every line, so that each gap lies between two intervals.
    lines, zeros, ones = np.arange(number), np.zeros(number), np.ones(number)
    line = np.concatenate([lines, intervals.line, lines])
    start = np.concatenate([zeros, intervals.start, ones])
    stop = np.concatenate([zeros, intervals.stop, ones])
    order = np.lexsort((stop, start, line))
    line, start, stop = line[order], start[order], stop[order]
    before = np.flatnonzero((line[1:] == line[:-1]) & (start[1:] - stop[:-1] >= MIN_GAP))
    return line[before], stop[before], start[before + 1]


def covered_share(intervals: Intervals, number: int) -> np.ndarray:
    """Return the share of each line that intervals cover.

    Args:
        intervals: Intervals in order along each line.
        number: Number of lines.

    Returns:
        float64 (number,); exactly 1 on lines without a gap.
    """
    line, start, stop = find_gaps(intervals, number)
    return 1 - np.bincount(line, weights=stop - start, minlength=number)
