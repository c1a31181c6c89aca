"""XML for pictures and pages. What is put in is escaped, whatever it is."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from qemu_esd.cli.render import printable

SVG = "http://www.w3.org/2000/svg"

# What all our pictures look like: by the wish of whoever looks, light or dark.
STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --fore: #1f2328; --dim: #59636e; --line: #d1d9e0; --panel: #f6f8fa;
  --local: #1a7f37; --mixed: #bf8700; --remote: #0969da; --hole: #d1d9e0; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --fore: #f0f6fc; --dim: #9198a1; --line: #3d444d;
  --panel: #151b23; --local: #3fb950; --mixed: #d29922; --remote: #4493f8; --hole: #3d444d; --bad: #f85149; } }
svg { font-family: ui-sans-serif, system-ui, sans-serif; font-size: 13px; }
svg .back { fill: var(--back); } svg text { fill: var(--fore); } svg .dim { fill: var(--dim); }
svg .name { font-weight: 600; } svg .mono { font-family: ui-monospace, monospace; font-size: 11px; }
svg .local { fill: var(--local); } svg .mixed { fill: var(--mixed); } svg .remote { fill: var(--remote); }
svg .hole { fill: var(--hole); } svg .bad { fill: var(--bad); }
"""


def tag(name: str, /, *children: Element | str, **attributes: object) -> Element:
    """An element. `class_` is class, and any other underscore a dash; None leaves an attribute out."""
    words = {key.rstrip("_").replace("_", "-"): _text(value) for key, value in attributes.items() if value is not None}
    element = Element(name, words)
    last: Element | None = None
    for child in children:
        if not isinstance(child, str):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + printable(child)
        else:
            last.tail = (last.tail or "") + printable(child)
    return element


def _text(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else printable(str(value))


def svg(width: float, height: float, *children: Element, label: str, style: str = "") -> Element:
    """A picture that fits any width; `label` says what it shows to those who do not see it."""
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    picture = tag("svg", tag("title", label), *([tag("style", style)] if style else []), *children, role="img")
    picture.attrib |= {"xmlns": SVG, **size}
    return picture


def svg_file(width: float, height: float, *children: Element, label: str, style: str = "") -> str:
    """The same as a file of its own."""
    back = tag("rect", width="100%", height="100%", class_="back")
    return tostring(svg(width, height, back, *children, label=label, style=STYLE + style), encoding="unicode") + "\n"
