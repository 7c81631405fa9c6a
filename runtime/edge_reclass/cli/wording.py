"""Help and errors of commands in plain words: ``N`` for ``<int range>``, "expected at least 1, got 0".

From 0.26 on Typer shows Python's types and pydantic's messages. Click, which it vendors, is not imported here: a
command's parameters are adapted as they are, and left alone where a version has nothing to adapt.
"""

from __future__ import annotations

import re
from typing import Any

import typer

_TYPES = (
    ("bool", ""),
    ("int", "N"),
    ("float", "X"),
    ("path", "PATH"),
    ("file", "FILE"),
    ("dir", "DIR"),
    ("str", "TEXT"),
)
_MESSAGES = (
    (r"Input should be greater than or equal to (.*)", r"expected at least \1"),
    (r"Input should be less than or equal to (.*)", r"expected at most \1"),
    (r"Input should be a valid integer\b.*", "expected a whole number"),
    (r"Input should be a valid number\b.*", "expected a number"),
    (r"Input should be (.*)", r"expected \1"),
)


def in_words(command: Any) -> Any:
    """``command`` (of Typer's or Click's classes) with its help and messages in words, and so its subcommands."""
    for parameter in command.params:
        if hasattr(parameter, "display_type_rich"):
            _adapt(parameter)
    for inner in getattr(command, "commands", {}).values():
        in_words(inner)
    return command


def _adapt(parameter: Any) -> None:
    if getattr(parameter, "is_in_words", False):
        return
    parameter.is_in_words = True
    if parameter.param_type_name == "argument":
        parameter.display_type_rich = lambda **_: None  # its name is enough
        parameter._usage_display_name = lambda: _usage(parameter)
    elif parameter.metavar is None:
        shown = parameter.display_type_rich
        parameter.display_type_rich = lambda **context: _type_in_words(shown(**context))
    process = parameter.process_value

    def process_in_words(ctx: Any, value: Any) -> Any:
        try:
            return process(ctx, value)
        except typer.BadParameter as error:
            error.message = _message_in_words(error.message, value)
            raise

    parameter.process_value = process_in_words


def _usage(argument: Any) -> str:
    name = argument.display_name_raw.removesuffix("...") + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _type_in_words(shown: str | None) -> str | None:
    match = re.fullmatch(r"<(?:list\[)?(\w+)(?: range)?\]?>", shown or "")
    return dict(_TYPES).get(match[1].lower(), shown) if match else shown


def _message_in_words(message: str, value: Any) -> str:
    for pattern, words in _MESSAGES:
        if match := re.fullmatch(pattern, message):
            return f"{match.expand(words)}, got {value!r}"
    return message
