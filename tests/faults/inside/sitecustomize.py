"""Python runs this first in each process that the harness starts: it loads what the harness wants there.

`TORTURE_INSIDE` names the modules of this directory, parted by commas. The product knows nothing of it.
"""

from __future__ import annotations

import importlib
import os

for _name in filter(None, os.environ.get("TORTURE_INSIDE", "").split(",")):
    importlib.import_module(f"tests.faults.inside.{_name}")
