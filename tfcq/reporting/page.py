"""A report's sections as one self-contained HTML page, and the same as Markdown."""

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

from tfcq.reporting import tables
from tfcq.reporting.style import STYLE

PICTURES = "pictures"


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: plain text.
    """

    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of plain texts.

    Args:
        items: the texts.
    """

    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading inside a section.

    Args:
        text: plain text.
    """

    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """Lines of a program.

    Args:
        text: the lines.
        language: its name, such as `python`.
    """

    text: str
    language: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column to the left, the others to the right.

    Args:
        header: heading of each column.
        rows: cells of each row, as many as the header has.
        caption: what the table shows.
        words: whether the other columns hold words and stand to the left, too.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        name: name of its file, without ending.
        png: the file's content.
        alt: what the picture shows, for those who cannot see it.
        caption: how it is read.
    """

    name: str
    png: bytes
    alt: str
    caption: str = ""


Block = Text | Items | Heading | Code | Table | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report under its heading.

    Args:
        title: the heading.
        blocks: what stands under it.
    """

    title: str
    blocks: Sequence[Block]


def picture_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Returns the pictures that the Markdown refers to, by their paths beside it.

    Args:
        sections: the report.
    """
    return {
        _picture_path(block): block.png
        for section in sections
        for block in section.blocks
        if isinstance(block, Picture)
    }


def _picture_path(picture: Picture) -> str:
    return f"{PICTURES}/{picture.name}.png"


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Returns a report as one HTML page that loads nothing.

    Args:
        title: heading of the page.
        sections: the report.
    """
    title = html.escape(title)
    anchors = [f"section-{number}" for number, _ in enumerate(sections, start=1)]
    contents = "".join(
        f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "\n".join(
        f'<section id="{anchor}">\n<h2>{html.escape(section.title)}</h2>\n'
        + "\n".join(_html(block) for block in section.blocks)
        + "\n</section>"
        for anchor, section in zip(anchors, sections, strict=True)
    )
    # The policy lets the browser itself refuse whatever would leave the page.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
{body}
</main>
</body>
</html>
"""


def _html_text(text: str) -> str:
    """Returns plain text as HTML; what stands between backticks is code."""
    parts = html.escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_html_text(block.text)}</p>"
    if isinstance(block, Heading):
        return f"<h3>{html.escape(block.text)}</h3>"
    if isinstance(block, Items):
        items = "".join(f"<li>{_html_text(item)}</li>" for item in block.items)
        return f"<ul>{items}</ul>"
    if isinstance(block, Code):
        return f"<pre><code>{html.escape(block.text)}</code></pre>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode()
        caption = f"<figcaption>{html.escape(block.caption)}</figcaption>" if block.caption else ""
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(block.alt)}">'
            f"{caption}</figure>"
        )
    return _html_table(block)


def _html_table(table: Table) -> str:
    header = "".join(f'<th scope="col">{html.escape(str(cell))}</th>' for cell in table.header)
    rows = []
    for first, *others in table.rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in others)
        rows.append(f'<tr><th scope="row">{html.escape(str(first))}</th>{cells}</tr>')
    caption = f"<figcaption>{html.escape(table.caption)}</figcaption>" if table.caption else ""
    kind = ' class="words"' if table.words else ""
    # The caption stands outside of what scrolls on a narrow screen, which the keyboard reaches.
    return (
        f'<figure>{caption}<div class="scroll" tabindex="0"><table{kind}>'
        f"<thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Returns a report as Markdown, which refers to `picture_files` beside it.

    Args:
        title: heading of the report.
        sections: the report.
    """
    parts = [f"# {_markdown_text(title)}"]
    for section in sections:
        parts.append(f"## {_markdown_text(section.title)}")
        parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


# What would be read as markup inside a line. An underscore within a word is none.
_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\*<>[]|#"})


def _markdown_text(text: str) -> str:
    """Returns plain text as Markdown that shows it; text between backticks stays as it is."""
    # A line's end would end a code span, and with an empty line the paragraph.
    text = " ".join(text.splitlines())
    parts = text.split("`")
    if len(parts) % 2 == 0 or "``" in text:
        return text.translate(_MARKUP).replace("`", "\\`")
    return "`".join(
        part if number % 2 else part.translate(_MARKUP) for number, part in enumerate(parts)
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return _markdown_text(block.text)
    if isinstance(block, Heading):
        return f"### {_markdown_text(block.text)}"
    if isinstance(block, Items):
        return "\n".join(f"- {_markdown_text(item)}" for item in block.items)
    if isinstance(block, Code):
        # Longer than any fence within.
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", block.text) or [""]))
        return f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"
    if isinstance(block, Picture):
        alt = " ".join(block.alt.translate(_MARKUP).split())
        caption = f"\n\n{_markdown_text(block.caption)}" if block.caption else ""
        return f"![{alt}]({_picture_path(block)}){caption}"

    def line(cells: Sequence[str]) -> list[str]:
        return [" ".join(_markdown_text(str(cell)).split()) for cell in cells]

    drawn = tables.table(line(block.header), [line(row) for row in block.rows])
    return f"{_markdown_text(block.caption)}\n\n{drawn}" if block.caption else drawn
