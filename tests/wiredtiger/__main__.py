"""`python -m tests.wiredtiger`: gets the engines that the tests use."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import wt_engines  # noqa: E402

sys.exit(wt_engines.main())
