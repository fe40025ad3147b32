"""Four kinds of figure as inline SVG: a timeline, an order, staircases, bars. Drawn from data, in the page's colours.

`draw` takes a chart as data, which JSON can hold: its `kind`, its `rows`, and by name whatever else the function of
that kind takes. Each returns a `Figure`: the drawing, and the data as a table for those who want numbers.

Across, a drawing is measured in shares of its width, from 0 to 1, and downward in pixels: on a phone it is narrower,
and its words are as large as anywhere.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Pixels across that a drawing has at least: on a phone, and on a desk.
_PHONE = 290
_DESK = 680
_ROW = 26
_CHAR = 7.2
_COLOURS = ("one", "two", "three")


@dataclass
class Figure:
    """A drawing of `height`, and its data: column names and rows. `legend` gives each colour its meaning."""

    body: list[str]
    height: float
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]] = field(default_factory=list)

    def markup(self, name: str, title: str) -> str:
        """Return the figure as HTML; `title` is its text alternative."""
        body = "".join(self.body)
        legend = "".join(f'<span class="{kind}">{html.escape(label)}</span>' for kind, label in self.legend)
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in self.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return (
            f'<figure class="chart" id="chart-{name}">'
            f'<svg role="img" aria-labelledby="{name}-caption" width="100%" height="{self.height:g}">{body}</svg>'
            f"{f'<p class=legend aria-hidden=true>{legend}</p>' if legend else ''}"
            f'<details class="data"><summary>The data</summary><div class="scroll" tabindex="0" role="region" '
            f'aria-label="Data of the figure"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
            f'</details><figcaption id="{name}-caption">{html.escape(title)}</figcaption></figure>'
        )


class Bar(NamedTuple):
    """A stretch of time in `group`, from `start` to `end` seconds; `kind` is its colour, `note` stands behind it."""

    group: str
    label: str
    start: float
    end: float
    kind: str = "one"
    note: str = ""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start", aside: float = 0) -> str:
    """Return a line of text, `aside` pixels to the right of `x`."""
    moved = f' dx="{aside:g}"' if aside else ""
    return f'<text x="{x:.1%}" y="{y:.1f}"{moved} text-anchor="{anchor}" class="{kind}">{html.escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line x1="{x1:.1%}" y1="{y1:.1f}" x2="{x2:.1%}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:.1%}" y="{y:.1f}" width="{width:.2%}" height="{height:.1f}" rx="2" class="{kind}"/>'


def lanes(bars: Iterable[Bar], overlap: float = 0.0) -> list[list[Bar]]:
    """Pack bars into as few lanes as there were things running at a time, the earliest first.

    `overlap` seconds do not count: a link of a chain tells its end just after the next one has started.
    """
    packed: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        for lane in packed:
            if lane[-1].end <= bar.start + overlap + 1e-6:
                lane.append(bar)
                break
        else:
            packed.append([bar])
    return packed


def ticks(most: float, count: int = 6) -> list[float]:
    """Return round numbers from 0 up to `most`."""
    if most <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(most))
    step = next(power * factor for factor in (2, 1, 0.5, 0.2, 0.1) if most / (power * factor) >= count)
    if most / step > 2 * count:
        step *= 2
    return [number * step for number in range(int(most / step + 1e-9) + 1)]


def _axis(most: float, y: float, unit: str, top: float) -> list[str]:
    """Return a time axis below `y`."""
    body = []
    for tick in ticks(most):
        x = tick / most
        body += [line(x, top, x, y, "grid"), text(x, y + 16, f"{tick:g}", "tick", "middle")]
    body.append(text(1, y + 32, unit, "tick", "end"))
    return body


def _inside(x: float, width: float, y: float, label: str, kind: str) -> list[str]:
    """Return a bar's label where there is room for it: everywhere, on a desk alone, or nowhere."""
    # A long label is cut to its first word where there is room for no more.
    for words in (label, label.partition(" ")[0]):
        needed = len(words) * _CHAR + 6
        if words and needed < width * _DESK:
            desk = "" if needed < width * _PHONE else " desk"
            return [text(x + width / 2, y, words, f"on-{kind}{desk}", "middle")]
    return []


def timeline(rows: Iterable[Sequence[Any]], legend: Sequence[tuple[str, str]] = ()) -> Figure:
    """Draw what ran when: for each group as many lanes as it used. A row is a `Bar`, in this or in JSON's form."""
    bars = [Bar(*row) for row in rows]
    groups = list(dict.fromkeys(bar.group for bar in bars))
    most = max(bar.end for bar in bars) * (1.3 if any(bar.note for bar in bars) else 1.02)
    height = 4.0
    body: list[str] = []
    for group in groups:
        body.append(text(0, height + 14, group, "label"))
        height += 18
        packed = lanes((bar for bar in bars if bar.group == group), most / 50)
        for lane in packed:
            for bar in lane:
                x, width = bar.start / most, max((bar.end - bar.start) / most, 0.004)
                body.append(rect(x, height + 3, width, _ROW - 6, bar.kind))
                body += _inside(x, width, height + 17, bar.label, bar.kind)
                if bar.note:
                    body.append(text(x + width, height + 17, bar.note, "label", aside=6))
            height += _ROW
        height += 6
    table = [(bar.group, bar.label, f"{bar.start:.2f}", f"{bar.end:.2f}") for bar in bars]
    body = _axis(most, height, "seconds", 4) + body
    return Figure(body, height + 40, ("where", "task", "started (s)", "ended (s)"), table, legend)


def order(rows: Sequence[tuple[str, int, str]], names: tuple[str, str]) -> Figure:
    """Draw two orders of the same things side by side, with a line from place to place.

    There is a row for each thing, in the first order: what it is, its place in the second, from 1, and its colour.
    `names` are those of the two orders.
    """
    top, step = 34.0, 28.0
    x1, x2 = 0.32, 0.68
    body = [text(x1, 16, names[0], "label", "middle"), text(x2, 16, names[1], "label", "middle")]
    for number, (label, place, kind) in enumerate(rows):
        y, goal = top + number * step, top + (place - 1) * step
        body += [
            line(x1, y, x2, goal, f"link {kind}"),
            text(x1, y + 4, label, "label", "end", -10),
            text(x2, goal + 4, label, "label", aside=10),
            f'<circle cx="{x1:.0%}" cy="{y:.1f}" r="4" class="{kind}"/>',
            f'<circle cx="{x2:.0%}" cy="{goal:.1f}" r="4" class="{kind}"/>',
        ]
    table = [(str(number), label, str(place)) for number, (label, place, _) in enumerate(rows, 1)]
    return Figure(body, top + len(rows) * step, (names[0], "what", names[1]), table)


def staircase(
    rows: Sequence[tuple[str, Sequence[float]]], counted: str, marks: Sequence[tuple[float, str]] = ()
) -> Figure:
    """Draw how many things had happened by when.

    There is a row for each staircase: its name and the instants of its steps, in seconds. `marks` are instants with a
    name, and `counted` is what the steps are.
    """
    most = max(*(max(instants) for _, instants in rows), *(at for at, _ in marks), 0.1) * 1.05
    top, bottom = 34.0, 274.0
    count = max(len(instants) for _, instants in rows)
    rise = (bottom - top) / count
    body = _axis(most, bottom, "seconds", top)
    for tick in ticks(count, 4)[1:]:
        y = bottom - tick * rise
        body += [line(0, y, 1, y, "grid"), text(0, y - 4, f"{tick:g}", "tick", aside=4)]
    body.append(text(0, 12, counted, "tick"))
    table: list[Sequence[str]] = []
    # The one thing whose places across can't be shares: its lines are stretched, and keep their strength.
    body.append(f'<svg y="{top:g}" height="{bottom - top:g}" viewBox="0 0 999 {count}" preserveAspectRatio="none">')
    for kind, (name, instants) in zip(_COLOURS, rows, strict=False):
        path = f"M0 {count}"
        for number, at in enumerate(sorted(instants), 1):
            path += f"H{at / most * 999:.0f}V{count - number}"
            table.append((name, str(number), f"{at:.2f}"))
        body.append(f'<path d="{path}" class="stair {kind}"/>')
    body.append("</svg>")
    for number, (at, name) in enumerate(marks):
        x = at / most
        body.append(line(x, top - 4, x, bottom, "mark"))
        anchor, aside = ("start", 5) if x < 0.5 else ("end", -5)
        body.append(text(x, top - 6 - 14 * number, name, "label", anchor, aside))
        table.append((name, "", f"{at:.2f}"))
    legend = [(kind, name) for kind, (name, _) in zip(_COLOURS, rows, strict=False)]
    return Figure(body, bottom + 40, ("", counted, "seconds"), table, legend)


def bars(rows: Sequence[tuple[str, Sequence[float]]], unit: str, counted: str) -> Figure:
    """Draw heights side by side, one small panel below the other, with a row for each: its name and the heights.

    The heights stand from 0 on of the x axis, which counts `unit`; `counted` is what they are.
    """
    most = max(max(heights) for _, heights in rows) or 1
    panel, gap, top = 92.0, 60.0, 54.0
    body = [text(0, 12, counted, "tick")]
    table: list[Sequence[str]] = []
    y = top
    for kind, (name, heights) in zip(_COLOURS, rows, strict=False):
        wide = 1 / len(heights)
        body += [text(0, y - 14, name, "label"), line(0, y + panel, 1, y + panel, "axis")]
        for number, height in enumerate(heights):
            table.append((name, str(number), f"{height:g}"))
            if height:
                tall = height / most * panel
                body.append(rect((number + 0.08) * wide, y + panel - tall, wide * 0.84, tall, kind))
        peak = max(heights)
        at, tall = (list(heights).index(peak) + 0.5) * wide, peak / most * panel
        anchor, side = ("start", 1) if at < 0.6 else ("end", -1)
        above = y + panel - tall + (10 if tall > panel / 2 else -6)
        body.append(text(at + wide / 2 * side, above, f"at most {peak:g}", "tick", anchor, 4 * side))
        for number in range(0, len(heights), max(1, len(heights) // 6)):
            body.append(text((number + 0.5) * wide, y + panel + 15, str(number), "tick", "middle"))
        y += panel + gap
    body.append(text(1, y - gap + 32, unit, "tick", "end"))
    return Figure(body, y - gap + 40, ("", unit, counted), table)


KINDS: Mapping[str, Callable[..., Figure]] = {
    "timeline": timeline,
    "order": order,
    "staircase": staircase,
    "bars": bars,
}


def draw(kind: str, rows: Sequence[Sequence[Any]], **more: Any) -> Figure:
    """Return the figure of a chart; `KeyError` where there is no such kind, `TypeError` where it takes no such data."""
    return KINDS[kind](rows, **more)
