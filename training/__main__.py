"""`python -m weir.training`."""

import sys

from weir.training.command import main

if __name__ == "__main__":
    sys.exit(main())
