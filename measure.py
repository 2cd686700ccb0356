"""Measure a finished run or a file of weights.

    python measure.py run=results/runs/NAME regions=[line,plane]

`python measure.py --help` lists the options.
"""

import sys

from regioncount.commands import measure

if __name__ == "__main__":
    sys.exit(measure())
