"""YAML as far as a manifest needs it: mappings with text keys, lists, and plain or quoted scalars.

No anchors, aliases, tags, merge keys or dates, and limits on size and depth. Built from PyYAML's events: none of its
constructors runs, so that no text can make it call, expand or recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from edge_reclass.bundle.limits import YAML_DEPTH

# Subsets of what PyYAML writes without quotes for these types, so that what it wrote is read back as it was.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"(?i:true|yes|on)")
_FALSE = re.compile(r"(?i:false|no|off)")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class YamlError(ValueError):
    """The text is no YAML, or more than a manifest needs; the message names line and column."""


def parse_yaml(text: str) -> Any:
    """The text as dicts with text keys, lists, str, int, float, bool and None; None for an empty text.

    Raises:
        YamlError: not YAML, a duplicate key, or anything that this module's text excludes.
    """
    events = _events(text)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if event.tags:
                raise _refused(event, "tags are not supported")
            value = _node(next(events), events, 1)
            next(events)  # the document's end
            for more in events:
                if isinstance(more, yaml.DocumentStartEvent):
                    raise _refused(more, "expected one document, got a second one")
            return value
    return None


def dump_yaml(plain: Any) -> str:
    """``plain`` data as text that :func:`parse_yaml` reads back; what occurs twice is written twice."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    # PyYAML's scanner and reader also leak ValueError (\x escapes beyond Unicode) and the like.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"not valid YAML: {error}") from error


def _node(event: Any, events: Iterator[yaml.Event], depth: int) -> Any:
    if isinstance(event, yaml.AliasEvent):
        raise _refused(event, "aliases are not supported; write the value out")
    if event.anchor is not None:
        raise _refused(event, "anchors are not supported; write the value out where it is needed")
    if event.tag is not None:
        raise _refused(event, f"tags are not supported, got {event.tag}")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if depth > YAML_DEPTH:
        raise _refused(event, f"nested deeper than {YAML_DEPTH} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_node(inner, events, depth + 1))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(inner := next(events), yaml.MappingEndEvent):
        key = _key(inner, events, depth)
        if key in mapping:
            raise _refused(inner, f"duplicate key {key!r}")
        mapping[key] = _node(next(events), events, depth + 1)
    return mapping


def _key(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> str:
    if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None:
        raise _refused(event, "merge keys are not supported")
    key = _node(event, events, depth + 1)
    if not isinstance(key, str):
        raise _refused(event, f"expected a text key, got {key!r}; quote it")
    return key


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    text = str(event.value)
    if event.style is not None:
        return _text(event, text)
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return _text(event, text)


def _text(event: yaml.Event, text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(event, "expected text without NUL and lone surrogates")
    return text


def _refused(event: yaml.Event, what: str) -> YamlError:
    mark = event.start_mark
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return YamlError(where + what)
