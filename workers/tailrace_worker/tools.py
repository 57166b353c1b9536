"""The default agent's tools: a calculator, a clock, and notes kept in MongoDB for each session."""

from __future__ import annotations

import ast
import math
import operator
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from langchain_core.tools import BaseTool, ToolException, tool

from tailrace.mongo import Database

__all__ = ["calculate", "calculator", "clock", "make_tools", "tell_time"]

MAX_EXPRESSION = 500  # characters
MAX_DIGITS = 2_000  # of an integer result; more says nothing to a reader and takes long to compute
MAX_NOTES = 200  # of a session; the oldest make room
MAX_NOTE = 2_000  # characters of one note

Number = int | float
_BITS = int(MAX_DIGITS * math.log2(10))

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs, "ceil": math.ceil, "cos": math.cos, "exp": math.exp, "floor": math.floor, "log": math.log,
    "log10": math.log10, "max": max, "min": min, "round": round, "sin": math.sin, "sqrt": math.sqrt,
    "tan": math.tan,
}  # fmt: skip
_CONSTANTS = {"pi": math.pi, "e": math.e}
_TYPED = str.maketrans({"×": "*", "÷": "/", "−": "-", "·": "*", "^": "**"})


def calculate(expression: str) -> str:
    """The value of an arithmetic expression, as text.

    Raises `ToolException`, whose text a model or a person understands, for everything else.
    """
    if len(expression) > MAX_EXPRESSION:
        raise ToolException(f"The expression is longer than {MAX_EXPRESSION} characters.")
    try:
        tree = ast.parse(expression.strip().translate(_TYPED), mode="eval")
        value = _value(tree.body)
    except ToolException:
        raise
    except ZeroDivisionError as error:
        raise ToolException("Division by zero.") from error
    except OverflowError as error:
        raise ToolException("The result is too large.") from error
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ToolException(f"{expression!r} is not arithmetic that I understand: {error}") from error
    return _shown(value)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _bounded(_UNARY[type(op)](_value(operand)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _operation(op, _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*map(_value, args)))
    raise ToolException(
        f"Only numbers, + - * / // % **, brackets, {', '.join([*_CONSTANTS, *_FUNCTIONS])} are allowed."
    )


def _operation(op: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        # Before computing: 9**9**9 would take all memory first and be refused afterwards.
        if abs(left) > 1 and right * left.bit_length() > _BITS * 2:
            raise ToolException(f"The result has more than {MAX_DIGITS} digits.")
        if abs(left) > 1 and -right * left.bit_length() > 100_000:
            return 0.0
    return _bounded(_BINARY[type(op)](left, right))


def _bounded(number: Any) -> Number:
    if isinstance(number, complex):
        raise ToolException("The result is not a real number.")
    if isinstance(number, int) and number.bit_length() > _BITS:
        raise ToolException(f"The result has more than {MAX_DIGITS} digits.")
    if isinstance(number, float) and not math.isfinite(number):
        raise ToolException("The result is too large.")
    return number  # type: ignore[no-any-return]


def _shown(value: Number) -> str:
    """Without the noise of binary fractions: 0.1+0.2 is 0.3."""
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".15g")


def tell_time(timezone: str, now: datetime) -> str:
    """The moment `now` in an IANA time zone, such as Europe/Berlin.

    Raises `ToolException` for a name that is no zone.
    """
    if timezone not in available_timezones():
        # The set is the guard too: ZoneInfo alone would take `..` and read files.
        raise ToolException(f"{timezone[:80]!r} is no IANA time zone; one is Europe/Berlin.")
    local = now.astimezone(ZoneInfo(timezone))
    return f"{local:%A, %d %B %Y, %H:%M:%S} in {timezone} ({local:%Z}, UTC{local:%z})"


# Made once: a tool's schema takes Pydantic a millisecond, and each run would begin by so much later.
@tool("calculator")
def calculator(expression: Annotated[str, "Such as 12 * (3 + 4) or sqrt(2)"]) -> str:
    """Compute an arithmetic expression exactly."""
    return calculate(expression)


@tool("clock")
def clock(timezone: Annotated[str, "An IANA time zone, such as Europe/Berlin"] = "UTC") -> str:
    """Tell the date and time now in a time zone."""
    return tell_time(timezone, datetime.now(UTC))


def make_tools(database: Database, session_id: str) -> list[BaseTool]:
    """The three tools for one run. The session is the run's, never the model's to choose."""
    notes = Notes(database, session_id)

    @tool("notes")
    async def keep_notes(
        action: Literal["add", "list", "clear"], text: Annotated[str, "What to note, for add"] = ""
    ) -> str:
        """Keep notes for the user in this conversation: add one, list all, or clear all."""
        if action == "add":
            return await notes.add(text)
        return await notes.listed() if action == "list" else await notes.clear()

    return [calculator, clock, keep_notes]


class Notes:
    """One session's notes: one document of the `notes` collection, whose `_id` is the session's id."""

    def __init__(self, database: Database, session_id: str) -> None:
        self._collection = database["notes"]
        self._session_id = session_id

    async def add(self, text: str) -> str:
        """Note `text`; says what was done."""
        kept = text.strip().encode(errors="replace").decode()
        if not kept or len(kept) > MAX_NOTE:
            raise ToolException(f"A note needs 1 to {MAX_NOTE} characters; this one has {len(kept)}.")
        entry = {"text": kept, "timestamp": time.time()}
        await self._collection.update_one(
            {"_id": self._session_id},
            {"$push": {"notes": {"$each": [entry], "$slice": -MAX_NOTES}}},
            upsert=True,
        )
        return f"Noted: {kept}"

    async def listed(self) -> str:
        """The notes, numbered, oldest first."""
        found = await self._collection.find_one({"_id": self._session_id}) or {}
        lines = [f"{nth}. {note['text']}" for nth, note in enumerate(found.get("notes", ()), 1)]
        return "\n".join(lines) or "There are no notes yet."

    async def clear(self) -> str:
        """Delete the notes; says so."""
        await self._collection.delete_one({"_id": self._session_id})
        return "All notes are cleared."
