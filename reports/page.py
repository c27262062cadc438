"""A page: one HTML file that needs nothing else, in the reader's colour scheme, and prints well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from reports.style import PAGE_FONTS, css_variables


class Section(NamedTuple):
    """A part of a page; ``body`` is HTML."""

    key: str  # its id, for links
    title: str
    body: str


def page(title: str, subtitle: Iterable[str], sections: Sequence[Section], footer: str) -> str:
    """The whole document. Text is escaped here; only the bodies of sections are HTML."""
    links = "".join(f'<a href="#{part.key}">{escape(part.title)}</a>' for part in sections)
    facts = "".join(f"<p>{escape(line)}</p>" for line in subtitle)
    body = "\n".join(
        f'<section id="{part.key}"><h2>{escape(part.title)}</h2>\n{part.body}\n</section>'
        for part in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css_variables()}{_CSS}</style></head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{facts}</header>\n<nav>{links}</nav>\n<main>\n{body}\n</main>\n"
        f"<footer>{escape(footer)}</footer>\n</body></html>\n"
    )


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """Headline numbers side by side, four in a row where they are four: what each is, its value, a remark."""
    cells = [
        f'<div class="tile"><dt>{escape(label)}</dt><dd>{escape(value)}</dd><p>{escape(remark)}</p></div>'
        for label, value, remark in items
    ]
    width = "23%" if len(cells) == 4 else "31%"
    return f'<dl class="tiles" style="--width: {width}">{"".join(cells)}</dl>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1, remarks: bool = False
) -> str:
    """A table; columns after the first ``text_columns`` hold numbers and end flush.

    ``remarks``: the last one holds text all the same.
    """
    numbers = range(text_columns, len(heads) - remarks)

    def line(cells: Sequence[str], tag: str) -> str:
        parts = (
            f'<{tag} class="number">{_SIGN.sub("−", escape(cell))}</{tag}>'
            if index in numbers
            else f"<{tag}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr>{''.join(parts)}</tr>"

    head = f"<thead>{line(heads, 'th')}</thead>" if any(heads) else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """A picture (from :func:`reports.figures.canvas.inline_svg`) and what to see in it."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{words}</figure>"


def points(lines: Iterable[str], kind: str = "plain") -> str:
    """A list; ``kind`` ``warning`` stands out, ``numbered`` counts from 1."""
    tag = "ol" if kind == "numbered" else "ul"
    return f'<{tag} class="{kind}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</{tag}>'


def listing(title: str, text: str) -> str:
    """A file that can be copied."""
    return f'<div class="listing"><h3>{escape(title)}</h3><pre>{escape(text)}</pre></div>'


def paragraph(text: str) -> str:
    """Plain words."""
    return f"<p>{escape(text)}</p>"


_SIGN = re.compile(r"^-(?=\d)")  # a hyphen before a number; a minus is as wide as a plus

_CSS = f"""
* {{ box-sizing: border-box; }}
html {{ scroll-behavior: smooth; scroll-padding-top: 3.2rem; }}
body {{ margin: 0 auto; padding: 0 1.5rem 3rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 {PAGE_FONTS}; font-variant-numeric: tabular-nums; }}
header {{ padding: 2rem 0 .8rem; }}
header p {{ margin: .1rem 0; color: var(--muted); }}
h1 {{ margin: 0 0 .3rem; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }}
h2 {{ margin: 0 0 .8rem; font-size: 1.15rem; }}
nav {{ position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem;
  padding: .6rem 0; background: var(--paper); border-bottom: 1px solid var(--line);
  white-space: nowrap; font-size: .88rem; }}
nav a {{ color: var(--muted); text-decoration: none; }}
nav a:hover, nav a:focus-visible {{ color: var(--ink); text-decoration: underline; }}
section {{ padding: 1.6rem 0 .4rem; border-bottom: 1px solid var(--line); }}
section:last-of-type {{ border-bottom: 0; }}
p {{ max-width: 50rem; }}
.tiles {{ display: grid; gap: .8rem; margin: 0 0 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(max(13.5rem, var(--width)), 1fr)); }}
.tile {{ padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }}
.tile dt {{ color: var(--muted); font-size: .85rem; }}
.tile dd {{ margin: 0; font-size: 1.55rem; font-weight: 650; line-height: 1.3; }}
.tile p {{ margin: 0; color: var(--muted); font-size: .82rem; }}
figure {{ margin: 0 0 1.2rem; }}
figcaption {{ max-width: 50rem; color: var(--muted); font-size: .85rem; }}
svg.figure {{ display: block; width: calc(100% * var(--share)); height: auto; font-family: inherit; }}
svg.figure * {{ stroke-linejoin: round; stroke-linecap: butt; }}
svg.figure text {{ white-space: pre; }}
.scroll {{ overflow-x: auto; margin: 0 0 1.2rem; }}
table {{ border-collapse: collapse; font-size: .88rem; }}
th {{ color: var(--muted); font-weight: 500; text-align: left; }}
th, td {{ padding: .28rem 1.2rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
h3 {{ margin: .4rem 0; font-size: .95rem; }}
.columns {{ columns: 21rem; column-gap: 2.2rem; }}
.columns > div {{ break-inside: avoid-column; }}
.columns table {{ width: 100%; font-size: .8rem; }}
.columns td {{ overflow-wrap: anywhere; }}
.number {{ text-align: right; white-space: nowrap; }}
ul, ol {{ margin: 0 0 1rem; padding-left: 1.1rem; max-width: 56rem; }}
ol {{ padding-left: 1.6rem; }}
ol li {{ margin-bottom: .35rem; }}
.listings {{ columns: 30rem; column-gap: 1.2rem; }}
.listing h3 {{ margin-top: 0; }}
.listing {{ break-inside: avoid-column; padding-bottom: 1rem; }}
pre {{ margin: 0; padding: .8rem 1rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px;
  font: 12.5px/1.45 ui-monospace, 'DejaVu Sans Mono', monospace; }}
ul.warning {{ padding: .7rem 1rem .7rem 2rem; background: var(--card); border-left: 4px solid var(--red); }}
footer {{ padding-top: 1.2rem; color: var(--muted); font-size: .82rem; overflow-wrap: anywhere; }}
@media screen {{
  figure {{ overflow-x: auto; }}
  svg.figure {{ min-width: calc(42rem * var(--share)); }}
}}
@media print {{
  body {{ max-width: none; padding: 0; font-size: 10pt; }}
  nav {{ display: none; }}
  section {{ border: 0; padding-top: .8rem; }}
  table {{ font-size: 8pt; }}
  .columns table {{ font-size: 6.5pt; }}
  th, td {{ padding: .15rem .7rem .15rem 0; }}
  figure, .tile, tr {{ break-inside: avoid; }}
  .tiles {{ grid-template-columns: repeat(auto-fit, minmax(max(8rem, var(--width)), 1fr)); }}
  .tile dd {{ font-size: 1.2rem; }}
  pre {{ white-space: pre-wrap; font-size: 7.5pt; }}
  h2 {{ break-after: avoid; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
