"""A clock that is wrong: `time.time` of the whole process is off by `TORTURE_SKEW` seconds."""

from __future__ import annotations

import os
import time

_TRUE = time.time
_SECONDS = float(os.environ["TORTURE_SKEW"])


def _skewed() -> float:
    return _TRUE() + _SECONDS


time.time = _skewed
