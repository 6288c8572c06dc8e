"""`python -m training`."""

import sys

from training.command import main

if __name__ == "__main__":
    sys.exit(main())
