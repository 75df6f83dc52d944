"""`python -m pylon`: the same as the `pylon` command."""

import sys

from pylon.cli import main

if __name__ == "__main__":
    sys.exit(main())
