"""asyncssh, without its search for a library of ciphers that hardly anybody has.

At each import it would run a compiler for that, and the compiler's file would stay in /tmp if we were killed meanwhile.
What the loader's cache knows is found all the same.
"""

from __future__ import annotations

import os

__all__ = ["asyncssh"]

_path = os.environ.get("PATH")
# Not empty: that would mean the working folder.
os.environ["PATH"] = "/nonexistent"
try:
    import asyncssh
finally:
    if _path is None:
        del os.environ["PATH"]
    else:
        os.environ["PATH"] = _path
