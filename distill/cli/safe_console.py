"""A console of rich's on which text of others is shown and never obeyed."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from distill.core.terminal import printable


class SafeConsole(Console):
    """A console of rich's on which text of others cannot command the terminal, in whatever it is wrapped."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield rich's segments, their text made safe; the codes of rich's own styles are no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
