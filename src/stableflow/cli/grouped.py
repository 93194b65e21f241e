"""Options declared once: a dataclass of options becomes a group of them in every verb that asks for it."""

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

from typer.models import OptionInfo


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with every parameter that is a dataclass taken apart into options under its title.

    The dataclass's fields are annotated as options of typer are; its `title` heads them in --help.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    plain = inspect.signature(function).parameters
    groups = {name: hints[name] for name in plain if dataclasses.is_dataclass(hints[name])}
    parameters: list[inspect.Parameter] = []
    for name, parameter in plain.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def call(**given: Any) -> Any:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return function(**made, **given)

    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]: typer asks for it
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_titled(hints[field.name], group.title),
        )
        for field in dataclasses.fields(group)
    ]


def _titled(annotation: Any, title: str) -> Any:
    kind, *extras = typing.get_args(annotation)
    options = [copy.copy(extra) for extra in extras if isinstance(extra, OptionInfo)]
    for option in options:
        option.rich_help_panel = title
    return Annotated[kind, *options]
