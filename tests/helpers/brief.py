"""Configs of Transformers that do not write themselves out.

Each one that is made is written, beside the default one, into a line of a log that nobody reads, and into errors that
its validation drops: nine tenths of the time that it takes to make one, and a tenth of that of many tests.
"""

from __future__ import annotations

import sys


def configs() -> None:
    """Let them be called by the name of their class, in this process and its children, if Transformers is loaded."""
    if "transformers.configuration_utils" in sys.modules:
        sys.modules["transformers.configuration_utils"].PreTrainedConfig.__repr__ = lambda self: type(self).__name__
