"""Binds a child process to its parent, so that a killed parent leaves nothing running. Linux only."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1

# Loaded now: between fork and exec a child may not import.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """For `preexec_fn`: when the parent ends, however it ends, the child gets SIGINT.

    That is the fast shutdown of PostgreSQL, and Ctrl-C for everybody else.
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
