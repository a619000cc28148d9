"""The command as a module: python -m hvpnet."""

import sys

from hvpnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
