"""What holds for all tests."""

from __future__ import annotations

import os

# `make test` runs us: without these a make that a test starts would think it is part of that
# one, and say which folders it enters and leaves.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)
