"""`python -m vold.cli`, which torchrun starts."""

import sys

from vold.cli import main

sys.exit(main())
