"""The modified launchers of Submitit: a lost job does not end the sweep."""

from types import SimpleNamespace

import pytest

launchers = pytest.importorskip("hydra_plugins.regioncount_launchers")


def test_a_lost_job_is_a_failed_result_that_names_its_log():
    def results():
        raise RuntimeError("several lines\nof a log")

    job = SimpleNamespace(job_id="7_0", state="CANCELLED", paths=SimpleNamespace(stderr="7_0.err"), results=results)
    with pytest.raises(RuntimeError, match=r"job 7_0 left no result \(CANCELLED\); its log is 7_0\.err"):
        _ = launchers._result(job).return_value
