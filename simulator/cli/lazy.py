"""Command groups that import a command when it is asked for, so that none pays for another's imports."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from simulator.spec.errors import Problem, SpecError, listed, nearest

INTERRUPTED = 128 + 2  # as a shell reports SIGINT
PIPE_CLOSED = 128 + 13  # as a shell reports SIGPIPE


class LazyGroup(TyperGroup):
    """A group whose commands are named in a table, beside those declared in the usual way.

    A value of ``table`` is ``module`` (its ``app``) or ``module:name``: a :class:`typer.Typer` or a function.
    """

    table: ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Names: the declared ones, then those of the table in its order."""
        return [*(name for name in self.commands if name not in self.table), *self.table]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        if cmd_name in self.table and cmd_name not in self.commands:
            self.commands[cmd_name] = _imported(cmd_name, self.table[cmd_name])
        command = self.commands.get(cmd_name)
        if command is not None:
            command.name = cmd_name  # by which the help of a terminal lists it
            for each in (command, *getattr(command, "commands", {}).values()):
                vars(each)["rich_markup_mode"] = self.rich_markup_mode  # help is plain below where it is here
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command and its arguments. Raises SpecError with the nearest name for a mistyped one."""
        if args and self.get_command(ctx, args[0]) is None:
            names = self.list_commands(ctx)
            rule = f"must be a command: {listed(names)}"
            suggestion = nearest(args[0], names)
            raise SpecError(
                Problem(key_path=ctx.command_path, value=args[0], rule=rule, suggestion=suggestion)
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and write out what it printed: a closed pipe shows here, not as Python exits."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush on the way out
            raise typer.Exit(PIPE_CLOSED) from None
        return result


def _imported(name: str, where: str) -> Any:
    module, _, attribute = where.partition(":")
    command = getattr(import_module(module), attribute or "app")
    if not isinstance(command, typer.Typer):
        function, command = command, typer.Typer(add_completion=False)
        command.command(name)(function)
    return typer.main.get_command(command)
