"""`python -m restora` is the `restora` command."""

import sys

from restora.cli import main

if __name__ == "__main__":
    sys.exit(main())
