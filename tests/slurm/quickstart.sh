#!/usr/bin/env bash
# Too slow for the test suite. Run: python tests/slurm/local_slurm.py tests/slurm/quickstart.sh DIR
# Run the quickstart on Slurm, drain its node and requeue two jobs in the middle, and compare its table with that of a run
# without Slurm. Then run a job that exceeds its time limit: Slurm warns and requeues it, and it resumes from its checkpoint.
set -euo pipefail
cd "$(dirname "$0")/../.."
results=$(realpath "$1")
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1

disturb() {
  node=$(sinfo --noheader --format=%n)
  until [ "$(find "$results/slurm/runs" -name model.pt 2>/dev/null | wc -l)" -ge 8 ]; do sleep 1; done
  running=$(squeue --noheader --array --states=RUNNING --format=%i)
  echo "--- draining $node, requeueing" $running
  scontrol update nodename="$node" state=drain reason=test
  for job in $running; do scontrol requeue "$job"; done
  sleep 20
  squeue --format='%i %T %r' | head -4
  scontrol update nodename="$node" state=resume
  echo "--- $node resumed"
}

disturb &
time $python sweep.py experiment=quickstart results="$results/slurm" hydra/launcher=submitit_slurm hydra.launcher.array_parallelism=2
wait
time $python sweep.py experiment=quickstart results="$results/basic" >/dev/null
$python - "$results" <<'COMPARE'
import sys
from pathlib import Path
import pandas as pd
ours, theirs = (pd.read_csv(next(Path(sys.argv[1]).glob(f"{name}/sweeps/*/runs.csv"))) for name in ("slurm", "basic"))
kept = [column for column in theirs if column not in ("seconds", "directory")]
pd.testing.assert_frame_equal(ours[kept], theirs[kept], check_exact=True)
print(f"--- identical tables of {len(ours)} runs with and without Slurm")
COMPARE

# A time limit of two minutes with a warning 30 s before it; Slurm may send the warning up to a minute earlier.
time $python sweep.py experiment=quickstart results="$results/limit" optimizer.learning_rate=0.1 batch_size=32 seed=0 \
  epochs="${EPOCHS:-1000}" snapshots.every=null hydra/launcher=submitit_slurm \
  hydra.launcher.timeout_min=2 hydra.launcher.signal_delay_s=30 hydra.launcher.max_num_timeout=20
cat "$results"/limit/sweeps/*/hydra/.submitit/*/*_log.*
