"""Ctrl-C during a sweep: the report of the runs so far, and a second Ctrl-C that skips it."""

import signal

import pytest
from test_sweep import TINY

from regioncount import commands
from regioncount.sweeps import launch

PLAIN = "sweep.py: interrupted. Rerun the same command to resume from the last checkpoint."
SKIPPED = (
    "sweep.py: interrupted. The report was not written. The runs are kept; rerun the same command to resume and report them."
)


@pytest.fixture
def _signal_handlers():
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def interrupt(*arguments):
    raise KeyboardInterrupt


def interrupt_twice(*arguments):
    try:
        raise KeyboardInterrupt
    finally:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("_signal_handlers")
@pytest.mark.parametrize(
    ("run_cells", "report", "reports", "last_line"),
    [
        (interrupt, lambda plan: 0, True, PLAIN),
        (interrupt, interrupt, True, SKIPPED),
        (interrupt_twice, lambda plan: 0, False, SKIPPED),  # while the cells are stopped
    ],
)
def test_a_second_interruption_skips_the_report(monkeypatch, tmp_path, capsys, run_cells, report, reports, last_line):
    monkeypatch.setattr(launch, "launch", run_cells)
    monkeypatch.setattr(launch, "_report", report)
    monkeypatch.setattr("sys.argv", ["sweep.py", "hydra/launcher=basic", f"results={tmp_path}", *TINY, "seed=0,1"])
    assert commands.sweep() == 130
    lines = capsys.readouterr().err.splitlines()
    expected = "interrupted; reporting the runs so far; a second interruption skips the report"
    assert lines == [*([expected] if reports else []), last_line]
