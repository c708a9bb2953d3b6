"""`python -m todm`, the form that torchrun can start."""

import sys

from todm.cli import main

if __name__ == "__main__":
    sys.exit(main())
