"""Options declared on the dataclass that holds them, read from a command line or from `name=value` text.

@dataclasses.dataclass(frozen=True)
class FrameOptions:
    frames: int = option(8, "frames shown of a video, uniform in time", at_least=1)
    media: str = option("pixels", "what is stored of an item", choices=("pixels", "reference"))

parser = argparse.ArgumentParser()
add_options(parser, FrameOptions)
options = read_options(FrameOptions, parser.parse_args(["--frames", "4"]))
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def option(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] | None = None,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    **more: Any,
) -> Any:
    """Declare a dataclass field that is an option.

    Args:
        default: Value where the option is not given.
        help: What the option means, with its unit.
        at_least: Smallest allowed number.
        at_most: Largest allowed number.
        choices: The only allowed values.
        parse: Turns text into the value, in place of the parser for the field's type. Raises ValueError.
        metavar: Name of the value in `--help`.
        repeat: For a tuple: one value each time the option is given, instead of values separated by commas.
        **more: Further metadata for the program that reads the field.

    Returns:
        A dataclass field. A field with no option metadata is ignored by `add_options` and `read_options`.
    """
    rules = {"at_least": at_least, "at_most": at_most, "choices": choices, "parse": parse}
    metadata = {"help": help, "metavar": metavar, "repeat": repeat, **rules, **more}
    return dataclasses.field(default=default, metadata=metadata)


def option_fields(owner: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass that are options, by name."""
    return {field.name: field for field in dataclasses.fields(owner) if "help" in field.metadata}


def parse_value(owner: type, name: str, text: str) -> Any:
    """Turn text into a value of one option.

    Raises:
        ValueError: The text is not such a value. The message says what was given and what was expected.
    """
    field, kind = option_fields(owner)[name], _kind(owner, name)
    rules = field.metadata
    if rules["parse"]:
        value = rules["parse"](text)
        return (value,) if rules["repeat"] else value
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        parts = [text] if rules["repeat"] else [part.strip() for part in text.split(",") if part.strip()]
        return tuple(_scalar(element, part, rules) for part in parts)
    return _scalar(kind, text, rules)


def option_flags(owner: type) -> list[str]:
    """The options of a dataclass as they are typed, for example `--max-pixels`."""
    return [f"--{name.replace('_', '-')}" for name in option_fields(owner)]


def add_options(parser: "argparse._ActionsContainer", owner: type) -> None:
    """Add every option of a dataclass to a command line, `max_pixels` as `--max-pixels`.

    Args:
        parser: The command line, or a group of its options.
        owner: The dataclass.
    """
    for flag, (name, field) in zip(option_flags(owner), option_fields(owner).items(), strict=True):
        rules, kind = field.metadata, _kind(owner, name)
        if kind is bool:
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            parser.add_argument(flag, action=action, default=argparse.SUPPRESS, help=rules["help"])
            continue
        default = show_value(field.default)
        parser.add_argument(
            flag,
            type=functools.partial(_argument, owner, name),
            default=argparse.SUPPRESS,
            action="append" if rules["repeat"] else "store",
            choices=rules["choices"],
            metavar=rules["metavar"] or (None if rules["choices"] else "N" if kind in (int, float) else "VALUE"),
            help=rules["help"] + (f" (default: {default})" if default and "(default" not in rules["help"] else ""),
        )


def read_options(owner: type[T], parsed: argparse.Namespace, **others: Any) -> T:
    """Build the dataclass from a parsed command line; `others` are the fields that are not options."""
    fields = option_fields(owner)
    values = {name: value for name, value in vars(parsed).items() if name in fields}
    for name in values:
        if fields[name].metadata["repeat"]:
            values[name] = tuple(itertools.chain.from_iterable(values[name]))
    return owner(**values, **others)


def show_value(value: Any) -> str:
    """A value as a user would type it; empty for a value that means "not given"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _kind(owner: type, name: str) -> Any:
    """The field's type without `| None`."""
    kind = typing.get_type_hints(owner)[name]
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def _argument(owner: type, name: str, text: str) -> Any:
    try:
        return parse_value(owner, name, text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _scalar(kind: type, text: str, rules: Mapping[str, Any]) -> Any:
    if kind is bool:
        if text.lower() not in YES_NO:
            raise ValueError(f"{text!r} is not yes or no")
        return YES_NO[text.lower()]
    if kind is int or kind is float:
        return _number(kind, text, rules["at_least"], rules["at_most"])
    if not text.strip():
        raise ValueError("the value is empty")
    if rules["choices"] and text not in rules["choices"]:
        raise ValueError(f"{text!r} is not {' or '.join(rules['choices'])}")
    return Path(text).expanduser() if kind is Path else text


def _number(kind: type, text: str, at_least: float | None, at_most: float | None) -> Any:
    with contextlib.suppress(ValueError):
        value = kind(text.replace("_", ""))
        if math.isfinite(value) and (at_least is None or value >= at_least) and (at_most is None or value <= at_most):
            return value
    expected = "a whole number" if kind is int else "a number"
    expected += "" if at_least is None else f", at least {at_least:g}"
    expected += "" if at_most is None else f", at most {at_most:g}"
    raise ValueError(f"{text!r} is not {expected}")
