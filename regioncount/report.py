"""Run the command regioncount-report as a module: python -m regioncount.report DIR."""

import sys

from regioncount.reporting.report import main

if __name__ == "__main__":
    sys.exit(main())
