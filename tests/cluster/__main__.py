"""`python -m tests.cluster`; see README.md."""

import sys

from tests.cluster.cli import main

sys.exit(main())
