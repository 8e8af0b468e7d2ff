"""`python -m tests.wiredtiger`: gets the engines that the tests use."""

import sys

from .engines import main

sys.exit(main())
