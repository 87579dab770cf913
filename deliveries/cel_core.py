"""The CEL engine without its command line, which the package imports and nothing here needs.

It would cost every process 33 MB and half a second (terminal colours, prompts, an argument parser). An empty module in
its place while the package is imported keeps it out. Pure.
"""

import sys
from types import ModuleType

COMMAND_LINE = "cel.cli"

_is_mine = COMMAND_LINE not in sys.modules
if _is_mine:
    sys.modules[COMMAND_LINE] = ModuleType(COMMAND_LINE)

from cel import Context, compile  # noqa: E402, A004 - after the empty module is in place; the engine's name for it

if _is_mine:
    del sys.modules[COMMAND_LINE]

__all__ = ["Context", "compile"]
