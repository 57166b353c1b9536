"""The registry of agents: named factories, and the default agent made with LangChain's `create_agent`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, cast

import msgspec
from langchain.agents import create_agent
from langchain.agents.middleware import ToolCallRequest, ToolErrorMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import ToolException

from tailrace.errors import SettingError
from tailrace.mongo import Database
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker.failures import AgentUnavailable, ModelUnavailable, UnknownAgent
from tailrace_worker.offline_model import OfflineModel
from tailrace_worker.tools import make_tools

__all__ = ["Agent", "AgentContext", "build_agent", "build_default", "build_model", "registry", "tool_errors"]

DEFAULT = "default"
_SYSTEM_PROMPT = (
    "You are a helpful assistant. Use the calculator for arithmetic, the clock for dates and times, and the "
    "notes tool to remember what the user asks you to remember."
)


class Agent(Protocol):
    """What a factory returns: a LangChain agent, a LangGraph graph, or anything that streams like one."""

    def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        """Yield `(mode, payload)` for the modes `messages`, `updates` and `custom`."""


class AgentContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a factory is given: one run's surroundings."""

    settings: Settings
    run: Run  # whose session, user, agent, metadata
    database: Database  # for tools that keep something; `run.session_id` says for whom
    model: BaseChatModel  # the worker's, or the one that the run asked for


Factory = Callable[[AgentContext], Any]  # returns an Agent, or an awaitable of one


def registry(settings: Settings) -> dict[str, str]:
    """The agents by name, as `MODULE:FACTORY`: those of `TAILRACE_AGENTS`, and the default.

    Raises `SettingError` when the variable is not `NAME=MODULE:FACTORY,…`.
    """
    named = {DEFAULT: f"{__name__}:build_default"}
    for entry in filter(None, (part.strip() for part in settings.agents.split(","))):
        name, equals, place = (part.strip() for part in entry.partition("="))
        module, colon, factory = place.partition(":")
        if not (name and equals and module and colon and factory):
            raise SettingError(
                f"TAILRACE_AGENTS={settings.agents!r} is not allowed: {entry!r} is not NAME=MODULE:FACTORY."
            )
        named[name] = place
    return named


async def build_agent(context: AgentContext) -> Agent:
    """The agent that the run names.

    Raises `UnknownAgent` or `AgentUnavailable`, whose texts say what to do.
    """
    named = registry(context.settings)
    place = named.get(context.run.agent)
    if place is None:
        raise UnknownAgent(
            f"There is no agent {context.run.agent!r}. Known agents: {', '.join(sorted(named))}."
        )
    factory = _imported(context.run.agent, place)
    try:
        built = factory(context)
        agent = await built if inspect.isawaitable(built) else built
    except ModelUnavailable:
        raise
    except Exception as error:
        raise AgentUnavailable(
            f"The agent {context.run.agent!r} could not be made by {place}: {_named(error)}"
        ) from error
    if not hasattr(agent, "astream"):
        raise AgentUnavailable(f"What {place} returned for the agent {context.run.agent!r} has no astream().")
    return cast("Agent", agent)


def _imported(name: str, place: str) -> Factory:
    module, _, factory = place.partition(":")
    try:
        return cast("Factory", getattr(importlib.import_module(module), factory))
    except Exception as error:
        raise AgentUnavailable(
            f"The agent {name!r} cannot be imported from {place} (TAILRACE_AGENTS): {_named(error)}"
        ) from error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def build_default(context: AgentContext) -> Agent:
    """LangChain's agent with a calculator, a clock and the session's notes."""
    return create_agent(
        context.model,
        make_tools(context.database, context.run.session_id),
        system_prompt=_SYSTEM_PROMPT,
        middleware=[tool_errors()],
    )


def tool_errors() -> ToolErrorMiddleware[Any, Any]:
    """Middleware for an agent of your own: the model reads a tool's exception and goes on.

    Without it LangChain ends the agent at a tool's exception.
    """
    return ToolErrorMiddleware(_tool_error)


def _tool_error(error: Exception, _: ToolCallRequest) -> str:
    # A ToolException is meant to be read; of any other error the class says what the text often does not.
    return (str(error) if isinstance(error, ToolException) else _named(error))[:2_000]


def build_model(settings: Settings, override: str | None = None) -> BaseChatModel:
    """The chat model that `TAILRACE_MODEL` names, or `override`.

    Raises `ModelUnavailable` that names the missing package or variable.
    """
    name = override or settings.model
    if name == "offline":
        return OfflineModel(tokens_per_second=settings.offline_tokens_per_second)
    try:
        return cast("BaseChatModel", init_chat_model(name, **_options(name, settings)))
    except ImportError as error:
        raise ModelUnavailable(f"The model {name!r} (TAILRACE_MODEL) needs a package. {error}") from error
    except Exception as error:
        raise ModelUnavailable(
            f"The model {name!r} (TAILRACE_MODEL) cannot be used. {_reason(name, error)}"
        ) from error


def _options(name: str, settings: Settings) -> dict[str, Any]:
    if settings.model_base_url is None:
        return {"stream_usage": True} if name.startswith(("openai:", "gpt-")) else {}
    options: dict[str, Any] = {"base_url": settings.model_base_url}
    provider = name.partition(":")[0] if _has_provider(name) else "openai"
    if provider == "openai":
        # LangChain leaves usage out for other servers than OpenAI's own; a local one wants no key, but
        # the client does.
        options |= {"stream_usage": True, "api_key": os.environ.get("OPENAI_API_KEY") or "none"}
    return options if _has_provider(name) else {"model_provider": "openai", **options}


def _has_provider(name: str) -> bool:
    """Whether `name` is `provider:model`; the tag of a local model, as in `llama3:8b`, looks the same."""
    provider, colon, _ = name.partition(":")
    module = f"langchain_{provider.replace('-', '_')}"
    return bool(colon) and provider.isidentifier() and importlib.util.find_spec(module) is not None


def _reason(name: str, error: Exception) -> str:
    provider, colon, _ = name.partition(":")
    key = f"{provider.upper().replace('-', '_')}_API_KEY"
    hint = (
        f" Is {key} set?" if colon and provider.replace("_", "").isalnum() and not os.environ.get(key) else ""
    )
    return f"{' '.join(str(error).split())[:400]}{hint}"
