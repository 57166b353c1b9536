"""The registry of agents and the choice of a model."""

from __future__ import annotations

import pytest
from langchain_openai import ChatOpenAI

from tailrace.ending import Failure
from tailrace.errors import SettingError
from tailrace.settings import Settings
from tailrace_worker.agents import build_model, registry
from tailrace_worker.failures import ModelUnavailable, explain
from tailrace_worker.offline_model import OfflineModel


def test_named_agents_stand_beside_the_default() -> None:
    named = registry(Settings(agents=" support = my_pkg.agents:build , other=x:y,"))
    assert named["support"] == "my_pkg.agents:build"
    assert set(named) == {"default", "support", "other"}


@pytest.mark.parametrize("agents", ["support", "support=", "=a:b", "a=b", "a=b:", "a=:b"])
def test_a_malformed_entry_is_named(agents: str) -> None:
    with pytest.raises(SettingError, match="NAME=MODULE:FACTORY"):
        registry(Settings(agents=agents))


def test_the_model_is_offline_unless_named() -> None:
    model = build_model(Settings(offline_tokens_per_second=7.0))
    assert isinstance(model, OfflineModel)
    assert model.tokens_per_second == 7.0
    with pytest.raises(ModelUnavailable, match="langchain-anthropic"):
        build_model(Settings(), "anthropic:claude-x")


@pytest.mark.parametrize(
    ("name", "model_name"), [("llama3:8b", "llama3:8b"), ("openai:gpt-x", "gpt-x"), ("gpt-x", "gpt-x")]
)
def test_a_base_url_means_an_openai_compatible_server(
    name: str, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = build_model(Settings(model=name, model_base_url="http://127.0.0.1:9/v1"))
    assert isinstance(model, ChatOpenAI)
    assert (model.model_name, model.openai_api_base) == (model_name, "http://127.0.0.1:9/v1")
    assert model.stream_usage is True


class _Refused(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("no")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (401, "model_unavailable", False),
        (429, "rate_limited", True),
        (503, "model_error", True),
        (400, "model_error", False),
    ],
)
def test_a_providers_status_is_explained(status: int, code: str, retryable: bool) -> None:
    failure = explain(_Refused(status))
    assert (failure.code, failure.retryable) == (code, retryable)


def test_a_group_is_explained_by_its_first_error_and_cut() -> None:
    failure = explain(ExceptionGroup("several", [ExceptionGroup("inner", [ValueError("x" * 10_000)])]))
    assert isinstance(failure, Failure)
    assert failure.message.startswith("The agent failed: ValueError: xxx")
    assert len(failure.message) < 1_000
