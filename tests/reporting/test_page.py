"""HTML escapes every text and refers to nothing; Markdown shows the same beside its pictures."""

import base64
import html.parser
import re

import pytest

from tfcq.reporting.page import (
    Code,
    Heading,
    Items,
    Picture,
    Section,
    Table,
    Text,
    picture_files,
    to_html,
    to_markdown,
)

NASTY = "<script>alert('x')</script> & \"y\" | *z*"
SECTIONS = [
    Section(
        NASTY,
        [
            Text(NASTY),
            Heading(NASTY),
            Items([NASTY, "run `a <b>`"]),
            Table((NASTY, "b"), [(NASTY, NASTY)], NASTY),
            Picture("p", b"\x89PNG", NASTY, NASTY),
            Code("print('<&>')\n", "python"),
        ],
    )
]


class Seen(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.attributes = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text.append(data)


def test_every_text_is_escaped_and_shown_as_it_was():
    seen = Seen()
    seen.feed(to_html(NASTY, SECTIONS))
    assert "script" not in seen.tags
    # Title twice; section in contents and heading; text, heading, item, header, row head, cell,
    # two captions.
    assert seen.text.count(NASTY) == 2 + 2 + 8
    assert ("alt", NASTY) in seen.attributes
    assert "print('<&>')\n" in seen.text and "a <b>" in seen.text


def test_page_holds_its_pictures_and_refers_to_nothing_else():
    page = to_html("t", SECTIONS)
    data = base64.b64encode(b"\x89PNG").decode()
    assert f'src="data:image/png;base64,{data}"' in page
    references = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]*)', page)
    assert [r for r in references if not r.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page


def test_contents_lead_to_the_sections():
    page = to_html("t", [Section("one", []), Section("two", [])])
    assert re.findall(r'href="#([^"]*)"', page) == re.findall(r'<section id="([^"]*)"', page)


@pytest.mark.parametrize("wrapped", ["{}", "`{}`"])
@pytest.mark.parametrize("name", ["a\n\n<b>", "a\r\r<b>", "a`` <b> ``", "a` <b> `c", "a`<b>"])
def test_markdown_shows_markup_in_names_as_text(name, wrapped):
    text = wrapped.format(name)
    blocks = [Text(text), Heading(text), Items([text]), Picture("p", b"", "alt", text)]
    table = Table((text, "v"), [(text, "1")], text)
    written = to_markdown(text, [Section(text, [*blocks, table])])
    # Code spans that one line holds as a whole, of one backtick each, show what is in them.
    shown = re.sub(r"(?<![`\\])`(?!`)[^`\n]*(?<!`)`(?!`)", "", written)
    assert re.findall(r"(?<!\\)<", shown) == []


def test_markdown_of_code_ends_where_the_code_does():
    written = to_markdown("T", [Section("S", [Code("```\n<b>", "python")])])
    assert written.endswith("````python\n```\n<b>\n````\n")


def test_markdown_is_the_same_with_pictures_beside_it():
    sections = [
        Section(
            "One",
            [
                Text("a | b"),
                Heading("Part"),
                Items(["x", "`y*z`"]),
                Table(("k", "v"), [("a|b", "1")], "Caption"),
                Picture("p", b"\x89PNG", "A picture", "How to read it"),
                Code("x = 1\n", "python"),
            ],
        )
    ]
    assert to_markdown("T", sections) == (
        "# T\n\n## One\n\na \\| b\n\n### Part\n\n- x\n- `y*z`\n\nCaption\n\n"
        "| k    | v |\n|------|--:|\n| a\\|b | 1 |\n\n![A picture](pictures/p.png)\n\n"
        "How to read it\n\n```python\nx = 1\n```\n"
    )
    assert picture_files(sections) == {"pictures/p.png": b"\x89PNG"}
