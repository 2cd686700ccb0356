"""Fuzz the readers of untrusted files, guided by coverage.

    python benchmarks/fuzz.py plan -max_total_time=300

The first argument is record, measures, plan, arrays or weights; the others are libFuzzer options. Each input is the content
of one file in an otherwise valid sweep directory. Reading it must succeed or raise InputError. Any other exception is a
crash, and libFuzzer writes its input to a file. Checksums are recomputed, because otherwise every input would fail the check
of its checksum. Needs `uv pip install atheris`.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["regioncount"]):
    from regioncount.errors import InputError
    from regioncount.runs import files, plans, store, weights

import fake_sweeps  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402


def with_checksum(content: bytes) -> bytes:
    """Return the content with a valid checksum, if it is a JSON mapping."""
    try:
        value = json.loads(content)
        value.pop("checksum", None)
        return json.dumps(value | {"checksum": files.json_digest(value)}).encode()
    except (ValueError, AttributeError, RecursionError):
        return content


def main() -> None:
    target, *options = sys.argv[1:]
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    sweep = fake_sweeps.write_sweep(scratch / "results", rates=(0.1,), sizes=(32,), seeds=(0,))
    (run,) = (scratch / "results" / "runs").iterdir()
    path = {"record": run / "run.json", "measures": run / "measures.json", "plan": sweep / "plan.json"}.get(target)
    seeds = scratch / "seeds"
    seeds.mkdir()
    arrays = files.array_bytes({"key/counts": np.arange(5), "key/entropies": np.linspace(0, 1, 5)})
    state = weights.tensor_bytes({"weight": torch.ones(2, 3), "epoch": 3})
    (seeds / "valid").write_bytes(path.read_bytes() if path else arrays if target == "arrays" else state)

    def read(content: bytes) -> None:
        try:
            if target == "arrays":
                files.load_arrays(content, scratch)
            elif target == "weights":
                weights.load_tensors(content, scratch)
            else:
                path.write_bytes(with_checksum(content))
                plans.read(sweep) if target == "plan" else store.load(run)
        except InputError:
            pass

    atheris.Setup([sys.argv[0], *options, str(seeds)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
