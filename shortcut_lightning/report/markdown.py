"""Tables in Markdown."""

from collections.abc import Sequence


def lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    table = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in table]
