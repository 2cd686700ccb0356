"""The progress of training: a bar on a terminal, a bounded number of lines elsewhere."""

import re

import pytest
import torch

from regioncount.training import progress


def run(epochs, epochs_done=0, stop_after=None, train_size=10):
    """Train on nothing: two batches an epoch, with a loss of 1 / epoch and half of the predictions correct."""
    with progress.progress_bar(epochs, train_size, epochs_done) as update:
        for epoch in range(epochs_done + 1, (stop_after or epochs) + 1):
            for seen in (train_size // 2, train_size):
                update(train_size // 2, torch.tensor(seen / epoch), torch.tensor(seen // 2))


def lines(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\r" not in printed.err
    assert "\x1b" not in printed.err
    return printed.err.splitlines()


def test_a_line_is_printed_after_each_epoch_if_epochs_are_slow(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    run(4)
    shown = [re.fullmatch(r"epoch (\d) of 4: loss (\S+), accuracy 0\.500, \d+ s", line) for line in lines(capsys)]
    assert [match and match.groups() for match in shown] == [("1", "1.000"), ("2", "0.500"), ("3", "0.333"), ("4", "0.250")]


def test_fast_epochs_print_the_first_and_the_last(capsys):
    run(2000)
    assert [line.partition(":")[0] for line in lines(capsys)] == ["epoch 1 of 2000", "epoch 2000 of 2000"]


@pytest.mark.parametrize("epochs", [100, 101, 2000])
def test_the_number_of_lines_is_bounded(capsys, monkeypatch, epochs):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    run(epochs)
    assert progress.MAX_LINES / 2 <= len(lines(capsys)) <= progress.MAX_LINES + 2


def test_a_resumed_run_goes_on_where_it_stopped(capsys):
    run(30, epochs_done=20)
    assert [line.partition(":")[0] for line in lines(capsys)] == ["epoch 21 of 30", "epoch 30 of 30"]


def test_the_epoch_at_which_a_stop_rule_ends_training_is_printed(capsys):
    run(30, stop_after=7)
    assert [line.partition(":")[0] for line in lines(capsys)] == ["epoch 1 of 30", "epoch 7 of 30"]


def test_nothing_is_printed_if_nothing_is_trained(capsys):
    run(5, epochs_done=5)
    assert lines(capsys) == []


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(3)
    shown = capsys.readouterr().err
    assert "\r" in shown
    assert "of 3: loss" not in shown
