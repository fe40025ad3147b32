"""Four kinds of figure as inline SVG: a timeline, an order, staircases, bars. Drawn from data, in the page's colours.

`draw` takes a chart as data, which JSON can hold: its `kind`, its `rows`, and by name whatever else the function of
that kind takes. Each returns a `Figure`: the drawing, and the data as a table for those who want numbers.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WIDTH = 720
_LEFT = 150
_RIGHT = 20
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
            f'<div class="scroll" tabindex="0" role="region" aria-label="Figure: {html.escape(title)}">'
            f'<svg role="img" viewBox="0 0 {WIDTH} {self.height:g}" aria-labelledby="{name}-title {name}-desc">'
            f'<title id="{name}-title">{html.escape(title)}</title>'
            f'<desc id="{name}-desc">The data stands in the table below the figure.</desc>{body}</svg></div>'
            f"{f'<p class=legend aria-hidden=true>{legend}</p>' if legend else ''}"
            f"<figcaption>{html.escape(title)}</figcaption>"
            f'<details class="data"><summary>The data</summary><div class="scroll" tabindex="0" role="region" '
            f'aria-label="Data of the figure"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
            "</details></figure>"
        )


class Bar(NamedTuple):
    """A stretch of time in `group`, from `start` to `end` seconds; `kind` is its colour, `note` stands behind it."""

    group: str
    label: str
    start: float
    end: float
    kind: str = "one"
    note: str = ""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{html.escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" class="{kind}"/>'


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
    step = 10.0 ** len(str(int(most)))
    while most / step < count:
        for factor in (2, 2.5, 2):
            step /= factor
            if most / step >= count:
                break
        if step < 1e-3:
            break
    if most / step > 2 * count:
        step *= 2
    return [number * step for number in range(int(most / step + 1e-9) + 1)]


def _axis(most: float, y: float, unit: str, top: float) -> tuple[list[str], float]:
    """Return a time axis below `y`, and the width of one unit."""
    scale = (WIDTH - _LEFT - _RIGHT) / most
    body = []
    for tick in ticks(most):
        x = _LEFT + tick * scale
        body += [line(x, top, x, y, "grid"), text(x, y + 16, f"{tick:g}", "tick", "middle")]
    body.append(text(WIDTH - _RIGHT, y + 32, unit, "tick", "end"))
    return body, scale


def timeline(rows: Iterable[Sequence[Any]], legend: Sequence[tuple[str, str]] = ()) -> Figure:
    """Draw what ran when: for each group as many lanes as it used. A row is a `Bar`, in this or in JSON's form."""
    bars = [Bar(*row) for row in rows]
    groups = list(dict.fromkeys(bar.group for bar in bars))
    most = max(bar.end for bar in bars) * (1.15 if any(bar.note for bar in bars) else 1.02)
    height = 10.0
    placed: list[tuple[float, str, list[list[Bar]]]] = []
    for group in groups:
        packed = lanes((bar for bar in bars if bar.group == group), most / 50)
        placed.append((height, group, packed))
        height += len(packed) * _ROW + 12
    body, scale = _axis(most, height, "seconds", 4)
    for top, group, packed in placed:
        body.append(text(_LEFT - 10, top + 17, group, "label", "end"))
        for number, lane in enumerate(packed):
            y = top + number * _ROW
            for bar in lane:
                x, width = _LEFT + bar.start * scale, max((bar.end - bar.start) * scale, 2.0)
                body.append(rect(x, y + 3, width, _ROW - 6, bar.kind))
                # A long label is cut to its first word where there is room for no more.
                label = bar.label if len(bar.label) * _CHAR < width - 6 else bar.label.partition(" ")[0]
                if len(label) * _CHAR < width - 6:
                    body.append(text(x + width / 2, y + 17, label, f"on-{bar.kind}", "middle"))
                if bar.note:
                    body.append(text(x + width + 6, y + 17, bar.note, "label"))
    table = [(bar.group, bar.label, f"{bar.start:.2f}", f"{bar.end:.2f}") for bar in bars]
    return Figure(body, height + 40, ("where", "task", "started (s)", "ended (s)"), table, legend)


def order(rows: Sequence[tuple[str, int, str]], names: tuple[str, str]) -> Figure:
    """Draw two orders of the same things side by side, with a line from place to place.

    There is a row for each thing, in the first order: what it is, its place in the second, from 1, and its colour.
    `names` are those of the two orders.
    """
    top, step = 34.0, 28.0
    x1, x2 = WIDTH * 0.32, WIDTH * 0.68
    body = [text(x1, 16, names[0], "label", "middle"), text(x2, 16, names[1], "label", "middle")]
    for number, (label, place, kind) in enumerate(rows):
        y, goal = top + number * step, top + (place - 1) * step
        body += [
            line(x1 + 12, y, x2 - 12, goal, f"link {kind}"),
            text(x1 - 4, y + 4, label, "label", "end"),
            text(x2 + 4, goal + 4, label, "label"),
            f'<circle cx="{x1 + 8:.1f}" cy="{y:.1f}" r="4" class="{kind}"/>',
            f'<circle cx="{x2 - 8:.1f}" cy="{goal:.1f}" r="4" class="{kind}"/>',
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
    top, bottom = 20.0, 260.0
    count = max(len(instants) for _, instants in rows)
    rise = (bottom - top) / count
    body, scale = _axis(most, bottom, "seconds", top)
    for tick in ticks(count, 4):
        y = bottom - tick * rise
        body += [line(_LEFT, y, WIDTH - _RIGHT, y, "grid"), text(_LEFT - 8, y + 4, f"{tick:g}", "tick", "end")]
    body.append(text(_LEFT - 8, 12, counted, "tick", "end"))
    table: list[Sequence[str]] = []
    for kind, (name, instants) in zip(_COLOURS, rows, strict=False):
        path = f"M{_LEFT} {bottom}"
        for number, at in enumerate(sorted(instants), 1):
            path += f" H{_LEFT + at * scale:.1f} V{bottom - number * rise:.1f}"
            table.append((name, str(number), f"{at:.2f}"))
        body.append(f'<path d="{path}" class="stair {kind}"/>')
    for at, name in marks:
        x = _LEFT + at * scale
        body.append(line(x, top - 4, x, bottom, "mark"))
        body.append(text(x - 5, top + 8, name, "label", "end"))
        table.append((name, "", f"{at:.2f}"))
    legend = [(kind, name) for kind, (name, _) in zip(_COLOURS, rows, strict=False)]
    return Figure(body, bottom + 40, ("", counted, "seconds"), table, legend)


def bars(rows: Sequence[tuple[str, Sequence[float]]], unit: str, counted: str) -> Figure:
    """Draw heights side by side, one small panel below the other.

    There is a row for each panel: its name and the heights from 0 on of the x axis, which counts `unit`; `counted` is
    what the heights are.
    """
    most = max(max(heights) for _, heights in rows) or 1
    panel, gap, top = 92.0, 44.0, 24.0
    body: list[str] = []
    table: list[Sequence[str]] = []
    y = top
    for kind, (name, heights) in zip(_COLOURS, rows, strict=False):
        wide = (WIDTH - _LEFT - _RIGHT) / len(heights)
        body += [
            text(_LEFT - 10, y + panel / 2 + 4, name, "label", "end"),
            line(_LEFT, y + panel, WIDTH - _RIGHT, y + panel, "axis"),
        ]
        for number, height in enumerate(heights):
            table.append((name, str(number), f"{height:g}"))
            if height:
                tall = height / most * panel
                x = _LEFT + number * wide
                body.append(rect(x + wide * 0.08, y + panel - tall, max(wide * 0.84, 0.8), tall, kind))
        peak = max(heights)
        at = _LEFT + (list(heights).index(peak) + 0.5) * wide
        tall = peak / most * panel
        anchor, side = ("start", 1) if at < WIDTH * 0.75 else ("end", -1)
        above = y + panel - tall + (10 if tall > panel / 2 else -6)
        body.append(text(at + (wide / 2 + 4) * side, above, f"at most {peak:g}", "tick", anchor))
        for number in range(0, len(heights), max(1, len(heights) // 6)):
            body.append(text(_LEFT + (number + 0.5) * wide, y + panel + 15, str(number), "tick", "middle"))
        y += panel + gap
    body.append(text(WIDTH - _RIGHT, y - gap + 32, unit, "tick", "end"))
    body.append(text(_LEFT, 12, counted, "tick"))
    return Figure(body, y - gap + 40, ("", unit, counted), table)


KINDS: Mapping[str, Callable[..., Figure]]
KINDS = {"timeline": timeline, "order": order, "staircase": staircase, "bars": bars}


def draw(kind: str, rows: Sequence[Sequence[Any]], **more: Any) -> Figure:
    """Return the figure of a chart; `KeyError` where there is no such kind, `TypeError` where it takes no such data."""
    return KINDS[kind](rows, **more)
