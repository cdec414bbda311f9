"""Pictures as SVG, narrow enough for a phone, with colours for light and dark."""

from dataclasses import dataclass, field
from html import escape
from typing import Any

WIDTH = 380
MARGIN = 14
CHARACTER = 7.3  # width of one, at 12 pixels in a font of fixed width
HEIGHT = 22  # of a token's box

STYLE = """
.paper { fill: #ffffff; stroke: #c9d1da }
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2933 }
.heading { font: 600 13px system-ui, "DejaVu Sans", sans-serif }
.note { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #52606d }
.target { fill: #1d4ed8 }
rect.context { fill: #e9edf2 } rect.hidden { fill: #fbc98b } rect.replaced { fill: #e3c1f2 } rect.kept { fill: #b6e3c9 }
rect.predicted { fill: #c3dafc } rect.marker { fill: #4b5563 }
rect.second { fill: #fde3b5 } rect.third { fill: #cfe8d5 } rect.seen { fill: #3b82f6 } rect.unseen { fill: #e9edf2 }
text.on-marker { fill: #ffffff } .line { stroke: #52606d; fill: none; stroke-width: 1.5 } .lost { fill: #f5b5b5 }
@media (prefers-color-scheme: dark) {
.paper { fill: #1e2129; stroke: #3e4452 } text { fill: #e4e7eb } .note { fill: #a3adba } .target { fill: #8ab4ff }
rect.context { fill: #353b47 } rect.hidden { fill: #8a5411 } rect.replaced { fill: #6b3d82 } rect.kept { fill: #1f6a45 }
rect.predicted { fill: #2a4b85 } rect.marker { fill: #aeb7c2 }
rect.second { fill: #6b4e16 } rect.third { fill: #2b5a3b } rect.seen { fill: #5b9bff } rect.unseen { fill: #353b47 }
text.on-marker { fill: #14171c } .line { stroke: #a3adba } .lost { fill: #8a3030 }
}
"""


@dataclass
class Picture:
    """A picture that grows downwards."""

    title: str
    """What it shows, for readers who do not see it."""
    parts: list[str] = field(default_factory=list)
    y: float = MARGIN

    def heading(self, text: str) -> None:
        """Write a heading."""
        self.y += 16
        self.text(MARGIN, self.y, text, "heading")
        self.y += 8

    def note(self, text: str) -> None:
        """Write a sentence, on as many lines as it needs."""
        for line in _wrapped(text, 56):
            self.y += 15
            self.text(MARGIN, self.y, line, "note")
        self.y += 8

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """Write a text at a place."""
        about = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{about} text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a rectangle of a kind, which is its colour."""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3"'
        self.parts.append(f'<rect {size} class="{kind}"/>')

    def line(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Draw a line."""
        self.parts.append(f'<path class="line" d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"/>')

    def tokens(self, tokens: list[dict[str, Any]], targets: bool = False) -> None:
        """Draw tokens in lines; under each, if `targets`, the token that is predicted there.

        Args:
            tokens: with `text`, `role` and perhaps `target`, as `lmft.inspection` makes them.
        """
        x = float(MARGIN)
        below = 5  # pixels below the line of boxes
        for token in tokens:
            shown = _shown(token["text"])
            target = _shown(token["target"]["text"]) if targets and "target" in token else ""
            width = max(len(shown), len(target)) * CHARACTER + 8
            if x + width > WIDTH - MARGIN:
                x = float(MARGIN)
                self.y += HEIGHT + below
                below = 5
            if token.get("seam"):
                self.line(x - 1.5, self.y - 2, x - 1.5, self.y + HEIGHT + 2)
            self.box(x, self.y, width, HEIGHT, token["role"])
            kind = "on-marker" if token["role"] == "marker" else ""
            self.text(x + width / 2, self.y + 15, shown, kind, "middle")
            if target:
                below = 20
                self.text(x + width / 2, self.y + HEIGHT + 12, target, "target", "middle")
            x += width + 4
        self.y += HEIGHT + below + 3

    def legend(self, kinds: dict[str, str]) -> None:
        """Explain colours: {kind: meaning}."""
        x = float(MARGIN)
        for kind, meaning in kinds.items():
            width = 20 + len(meaning) * 6.6
            if x + width > WIDTH - MARGIN:
                x = float(MARGIN)
                self.y += 18
            self.box(x, self.y, 12, 12, kind)
            self.text(x + 16, self.y + 10, meaning, "note")
            x += width + 8
        self.y += 20

    def matrix(self, rows: list[str], columns: list[str], seen: list[list[bool]]) -> None:
        """Draw who sees whom: a square for each prediction (row) and token (column)."""
        left = MARGIN + max(map(len, rows)) * CHARACTER + 6
        size = min(20.0, (WIDTH - MARGIN - left) / len(columns))
        top = self.y + max(map(len, columns)) * CHARACTER + 6
        for number, column in enumerate(columns):
            x = left + number * size + size / 2 + 4
            turned = f'transform="translate({x:.1f} {top - 4:.1f}) rotate(-90)"'
            self.parts.append(f"<text {turned}>{escape(column)}</text>")
        for number, (row, cells) in enumerate(zip(rows, seen, strict=True)):
            y = top + number * size
            self.text(left - 5, y + size / 2 + 4, row, "target", "end")
            for column, is_seen in enumerate(cells):
                kind = "seen" if is_seen else "unseen"
                self.box(left + column * size, y, size - 2, size - 2, kind)
        self.y = top + len(rows) * size + 8

    def svg(self) -> str:
        """Return the picture."""
        height = self.y + MARGIN - 6
        size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
        paper = f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        title = f"<title>{escape(self.title)}</title>"
        return "\n".join([head, title, f"<style>{STYLE}</style>", paper, *self.parts, "</svg>", ""])


def _shown(text: str) -> str:
    return text.strip() or "␣"


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
