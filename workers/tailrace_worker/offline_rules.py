"""What the offline demo model answers: a few rules over the conversation, the same answer every time."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Any
from zoneinfo import available_timezones

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

__all__ = ["Reply", "decide"]

MAX_WORDS = 100_000  # of the long answer that "write N words" asks for
MAX_RULED = 2_000  # characters of a prompt that the rules read; more would cost time and tell nothing
_LINE = "the river carries every word downstream and none of them is lost or seen twice on its way"

_LONG = re.compile(r"\bwrite (\d{1,9}) words\b", re.IGNORECASE)
_NOTE = re.compile(
    r"\b(?:remember|note)\b(?:\s+(?:down|that|this)\b)*[:,]?\s+(\S.*)", re.IGNORECASE | re.DOTALL
)
_NOTES = re.compile(r"what did i (?:note|ask you to remember)|\b(?:my|the|list|show) notes\b", re.IGNORECASE)
_FORGET = re.compile(r"\b(?:clear|delete|forget)\b.*\bnotes\b", re.IGNORECASE)
_TIME = re.compile(r"\b(?:time|clock|date|day)\b", re.IGNORECASE)
_BEFORE = re.compile(r"what did i (?:say|ask|write)", re.IGNORECASE)
_THINK = re.compile(r"\bthink\b", re.IGNORECASE)
_SUM = re.compile(r"[(\d][\d\s.()+*/%^×÷−-]*[+*/%^×÷−-][\d\s.()+*/%^×÷−-]*[\d)]")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the model."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()  # each `id`, `name`, `args`
    error: str | None = None  # raise this after the text


def decide(messages: Sequence[BaseMessage], tools: Collection[str]) -> Reply:
    """The reply to `messages`, calling only tools named in `tools`. Pure: the same input, the same reply."""
    results = _fresh_results(messages)
    if results:
        return Reply(text=_answer_with(results))
    prompt = _last_prompt(messages)
    calls = tuple(
        {"id": _call_id(messages, nth), "name": name, "args": args}
        for nth, (name, args) in enumerate(_wanted(prompt[:MAX_RULED]))
        if name in tools
    )
    return Reply(tool_calls=calls) if calls else _say(prompt, messages)


def _say(prompt: str, messages: Sequence[BaseMessage]) -> Reply:
    lowered = prompt.lower()
    if "please fail later" in lowered:
        return Reply(text="This answer begins well, and then it breaks off as you asked", error=_FAILED)
    if "please fail" in lowered:
        return Reply(error=_FAILED)
    if found := _LONG.search(prompt):
        return Reply(text=_words(min(int(found[1]), MAX_WORDS)))
    if _BEFORE.search(prompt):
        return Reply(text=_before(messages))
    return Reply(text=_introduction(prompt, messages), reasoning=_reasoning(prompt))


_FAILED = "You asked the offline demo model to fail, and it did."


def _reasoning(prompt: str) -> str:
    if not _THINK.search(prompt):
        return ""
    return f"The prompt has {len(prompt.split())} words. No rule of mine fits it better."


def _introduction(prompt: str, messages: Sequence[BaseMessage]) -> str:
    earlier = _earlier(messages)
    seen = (
        f"I see {earlier} earlier message{'s' * (earlier > 1)}"
        if earlier > 0
        else "This is the first message I see"
    )
    return (
        "I am Tailrace's offline demo model: there is no language model behind me, only a few rules. "
        f"You wrote: “{prompt}”. {seen} of this conversation. Try “what is 12*(3+4)?”, “what time is it in "
        "Tokyo?”, “remember that tea is at four”, “what did I note?” or “write 200 words”. "
        "Set TAILRACE_MODEL for a real model."
    )


def _earlier(messages: Sequence[BaseMessage]) -> int:
    return sum(message.type in ("human", "ai") for message in messages) - 1


def _before(messages: Sequence[BaseMessage]) -> str:
    prompts = [message.text for message in messages if isinstance(message, HumanMessage)]
    if len(prompts) < 2:
        return "You have said nothing before this, as far as I can see."
    return f"Before this you wrote: “{prompts[-2]}”. I see {_earlier(messages)} earlier messages."


def _wanted(prompt: str) -> list[tuple[str, dict[str, Any]]]:
    if _FORGET.search(prompt):
        return [("notes", {"action": "clear"})]
    if _NOTES.search(prompt):
        return [("notes", {"action": "list"})]
    if found := _NOTE.search(prompt):
        return [("notes", {"action": "add", "text": found[1].strip()})]
    wanted: list[tuple[str, dict[str, Any]]] = []
    if _TIME.search(prompt):
        wanted += [("clock", {"timezone": zone}) for zone in _zones(prompt)]
    wanted += [("calculator", {"expression": found.strip()}) for found in _SUM.findall(prompt)]
    return wanted


def _zones(prompt: str) -> list[str]:
    """The zones that the prompt names by IANA name or by city, in order; UTC when it names none."""
    named = [word for word in re.findall(r"\w+(?:/[\w+-]+)+", prompt) if word in available_timezones()]
    words = re.findall(r"[^\W_]+", re.sub(r"\w+/\S+", " ", prompt).lower())
    rest = f" {' '.join(words)} "
    found = [(rest.index(f" {city} "), zone) for city, zone in _cities().items() if f" {city} " in rest]
    return list(dict.fromkeys([*named, *(zone for _, zone in sorted(found))])) or ["UTC"]


@functools.cache
def _cities() -> dict[str, str]:
    zones = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/"))
    return {zone.rpartition("/")[2].replace("_", " ").lower(): zone for zone in zones}


def _fresh_results(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    results: list[ToolMessage] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, message)
    return results


def _answer_with(results: Sequence[ToolMessage]) -> str:
    said = [
        f"The {result.name} tool could not do it: {result.text}"
        if result.status == "error"
        else f"The {result.name} tool says: {result.text}"
        for result in results
    ]
    return "\n".join(said)


def _last_prompt(messages: Sequence[BaseMessage]) -> str:
    return next((message.text for message in reversed(messages) if isinstance(message, HumanMessage)), "")


def _words(count: int) -> str:
    words = _LINE.split()
    return " ".join(words[nth % len(words)] for nth in range(count))


def _call_id(messages: Sequence[BaseMessage], nth: int) -> str:
    """Derived from the conversation: the same when a run is repeated, another in another turn."""
    digest = hashlib.sha256(str(nth).encode())
    for message in messages:
        digest.update(message.text.encode(errors="replace"))
        if isinstance(message, AIMessage):
            digest.update(repr(message.tool_calls).encode(errors="replace"))
        digest.update(b"\0")
    return f"call_{digest.hexdigest()[:24]}"
