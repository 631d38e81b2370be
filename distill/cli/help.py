"""Help of Typer commands as plain text for any width: usage, description, examples, arguments, options.

Example:

    Usage: distill sft [OPTIONS] [RECIPE]

    Fine-tune the student on the kept traces.

    Examples:
      distill sft --student qwen-1.5b
"""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

MAX_WIDTH = 100
INDENT = 2
MAX_LABEL = 26
"""An option with a longer label has its help on the next line."""
ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"
VALUES = {"path": "PATH", "str": "TEXT", "int": "N", "float": "X", "int range": "N", "float range": "X"}
"""Names of option values by type, for options without a metavar."""


class HelpfulCommand(TyperCommand):
    """A command with distill's own help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


class HelpfulGroup(TyperGroup):
    """A group of commands with distill's own help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(help_text(self, ctx))


def help_text(command: TyperCommand | TyperGroup, ctx: Any) -> str:
    """Return a command's help, as wide as the terminal but at most `MAX_WIDTH` characters."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, MAX_WIDTH)
    with console.capture() as capture:
        for line, style in _lines(command, ctx, width):
            text = Text()
            for piece, look in zip(line, style, strict=True):
                text.append(piece, look)
            console.print(text, soft_wrap=True)
    return capture.get()


Line = tuple[tuple[str, ...], tuple[str, ...]]
"""Pieces of a line, and the style of each."""


def _lines(command: TyperCommand | TyperGroup, ctx: Any, width: int) -> Iterator[Line]:
    # Typer puts required arguments in braces.
    pieces = (re.sub(r"[{}]", "", piece) for piece in command.collect_usage_pieces(ctx))
    usage = " ".join([ctx.command_path, *pieces])
    yield from _wrapped(f"Usage: {usage}", width, "bold")
    yield _plain("")
    yield from _wrapped(command.help or "", width)
    if examples := (command.epilog or "").splitlines():
        yield from _heading("Examples")
        yield from _example_lines(examples, width)
    sections: dict[str, list[tuple[str, str]]] = {}
    if isinstance(command, TyperGroup):
        for name, member in command.commands.items():
            if not member.hidden:
                panel = getattr(member, "rich_help_panel", None) or COMMANDS
                sections.setdefault(panel, []).append((name, member.help or ""))
    for param in command.get_params(ctx):
        if isinstance(param, TyperArgument) and not param.hidden:
            sections.setdefault(param.rich_help_panel or ARGUMENTS, []).append((_name(param), _about(param, ctx)))
    for param in command.get_params(ctx):
        if isinstance(param, TyperOption) and not param.hidden:
            sections.setdefault(param.rich_help_panel or OPTIONS, []).append((_label(param, ctx), _about(param, ctx)))
    for title in sorted(sections, key=lambda title: title not in (ARGUMENTS, OPTIONS) and not _has_commands(command)):
        yield from _heading(title)
        yield from _table(sections[title], width)


def _has_commands(command: TyperCommand | TyperGroup) -> bool:
    return isinstance(command, TyperGroup)


def _plain(text: str) -> Line:
    return (text,), ("",)


def _heading(title: str) -> Iterator[Line]:
    yield _plain("")
    yield (f"{title}:",), ("bold",)


def _wrapped(text: str, width: int, style: str = "") -> Iterator[Line]:
    for paragraph in text.split("\n\n"):
        for line in textwrap.wrap(paragraph, width, break_long_words=False, break_on_hyphens=False):
            yield (line,), (style,)


def _example_lines(examples: list[str], width: int) -> Iterator[Line]:
    """Yield the commands, each followed by its note if all fit, else with the note above."""
    pairs = [tuple(part.strip() for part in line.partition("  #")[::2]) for line in examples]
    room = max((len(command) for command, note in pairs if note), default=0)
    margin = " " * INDENT
    if all(INDENT + max(room, len(command)) + 4 + len(note) <= width for command, note in pairs):
        for command, note in pairs:
            yield (
                (f"{margin}{command}" + (" " * (room - len(command)) if note else ""), f"  # {note}" if note else ""),
                (
                    "cyan",
                    "dim",
                ),
            )
        return
    for command, note in pairs:
        if note:
            for line in textwrap.wrap(note, width - INDENT - 2):
                yield (f"{margin}# {line}",), ("dim",)
        for line in _shell_lines(command, width - INDENT):
            yield (f"{margin}{line}",), ("cyan",)


def _shell_lines(command: str, width: int) -> Iterator[str]:
    """Yield a command line broken before options by backslashes, so that it can still be copied."""
    line = ""
    for part in re.split(r" (?=--?[a-z])", command):
        if line and len(line) + len(part) + 3 > width:
            yield f"{line} \\"
            line = f"    {part}"
        else:
            line = f"{line} {part}" if line else part
    yield line


def _table(rows: list[tuple[str, str]], width: int) -> Iterator[Line]:
    fitting = [len(label) for label, _ in rows if len(label) <= MAX_LABEL]
    start = INDENT + max(fitting, default=MAX_LABEL) + 2
    for label, about in rows:
        lines = textwrap.wrap(about, max(20, width - start), break_long_words=False, break_on_hyphens=False) or [""]
        if len(label) > MAX_LABEL:
            yield (" " * INDENT + label,), ("cyan",)
        else:
            yield (" " * INDENT + label.ljust(start - INDENT), lines.pop(0)), ("cyan", "")
        for line in lines:
            yield _plain(" " * start + line)


def _name(param: TyperArgument) -> str:
    name = param.metavar or str(param.name).upper()
    return f"{name}..." if param.nargs == -1 and not name.endswith("...") else name


def _label(param: TyperOption, ctx: Any) -> str:
    """Return an option's label: `-q, --quiet`, `--set KEY=VALUE`, `--public / --private`."""
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        return f"{names} / {', '.join(param.secondary_opts)}"
    if param.is_flag or param.count:
        return names
    kind = param.display_type(ctx).strip("<>").removeprefix("list[").removesuffix("]")
    return f"{names} {param.metavar or VALUES.get(kind, kind)}"


def _about(param: TyperArgument | TyperOption, ctx: Any) -> str:
    about = param.help or ""
    if not param.show_default or getattr(param, "is_flag", False):
        return about
    default = param._extract_default_help_str(ctx=ctx)  # as Typer's own help does
    return about if default in (None, [], ()) else f"{about} [default: {default}]"
