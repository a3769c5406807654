"""`python -m perceiver_runtime` is `perceiver-run`."""

import sys

from perceiver_runtime.cli.main import main

sys.exit(main())
