"""A rich console for text from untrusted sources."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from distill.core.terminal import printable


class SafeConsole(Console):
    """A rich console on which untrusted text cannot control the terminal, whatever renderable contains it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield rich's segments with their text made safe; rich's own control codes are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
