"""What each extra brings is all that its part imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED_FOR_API = (
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langgraph",
    "langfuse",
    "openai",
    "tailrace_worker",
)
BLOCKED_FOR_BASE = ("litestar", "uvicorn", "rq", "redis", "jwt", "cryptography", *BLOCKED_FOR_API)

_IMPORT = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Blocked())
for name in {modules!r}:
    importlib.import_module(name)
"""


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (("tailrace.api.app",), BLOCKED_FOR_API),
        (("tailrace.client", "tailrace.events", "tailrace.settings"), BLOCKED_FOR_BASE),
    ],
    ids=["the API without LangChain", "client and events with the base install"],
)
def test_it_imports_where_only_its_own_extra_is_installed(
    modules: tuple[str, ...], blocked: tuple[str, ...]
) -> None:
    code = _IMPORT.format(modules=modules, blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
