"""Tables of text, for reports and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 0) -> Iterator[str]:
    """The lines of a Markdown table. All columns after the first `text_columns` align to the right; 0: none does."""
    rule = ["---" if not text_columns or i < text_columns else "---:" for i in range(len(head))]
    for line in (head, rule, *rows):
        yield f"| {' | '.join(line)} |"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
