"""`python -m bayesinv` is the command line."""

import sys

from bayesinv.cli import main

sys.exit(main())
