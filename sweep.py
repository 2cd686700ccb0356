"""Train and measure a grid of runs, and correlate their measures.

    python sweep.py experiment=quickstart

`python sweep.py --help` lists the options.
"""

import sys

from regioncount.commands import sweep

if __name__ == "__main__":
    sys.exit(sweep())
