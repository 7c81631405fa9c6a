"""The page's style sheet: colours as variables, light and dark, and plain on paper.

Fills keep a contrast of 3 to the page and of 4.5 to the text in them; a test computes both.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "style_sheet"]

LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "panel": "#f5f6f8",
    "text": "#17191c",
    "muted": "#535a63",
    "rule": "#d9dde2",
    "warn": "#8a3d00",
    "warn-panel": "#fff4e5",
    "on-fill": "#ffffff",
    "decode": "#5b6770",
    "resample": "#0f766e",
    "features": "#2b7a2f",
    "fill": "#9a5800",
    "run": "#1d5fbf",
    "copy-in": "#7447c4",
    "copy-out": "#a0359a",
    "launch": "#3f6f8f",
    "head": "#b3261e",
    "policy": "#6a5b00",
    "other": "#6f6f6f",
    "cold": "#1d5fbf",
    "warm": "#b3400e",
    "expected": "#7447c4",
    "measured": "#1d5fbf",
    "baseline": "#5b6770",
    "exit": "#2b7a2f",
    "on": "#6b727a",
}

DARK: Mapping[str, str] = {
    "page": "#14171a",
    "panel": "#1e2327",
    "text": "#e9ecef",
    "muted": "#a9b1ba",
    "rule": "#343a41",
    "warn": "#ffc489",
    "warn-panel": "#33260f",
    "on-fill": "#0e1012",
    "decode": "#9fb0bd",
    "resample": "#5cc8bb",
    "features": "#86cf88",
    "fill": "#f0b060",
    "run": "#7fb2ff",
    "copy-in": "#b79dff",
    "copy-out": "#eb9de0",
    "launch": "#8fc4e3",
    "head": "#ff9a91",
    "policy": "#d6c65a",
    "other": "#b0b0b0",
    "cold": "#7fb2ff",
    "warm": "#ffab73",
    "expected": "#b79dff",
    "measured": "#7fb2ff",
    "baseline": "#9fb0bd",
    "exit": "#86cf88",
    "on": "#7c858e",
}

_PARTS = ("decode", "resample", "features", "fill", "run", "launch", "head", "policy", "other")
_SERIES = ("cold", "warm", "expected", "measured", "baseline", "exit", "on")

_RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",Arial,sans-serif}
main{max-width:1088px;margin:0 auto;padding:24px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px}
h2{font-size:1.2rem;line-height:1.3;margin:0 0 4px}
h3{font-size:1rem;margin:16px 0 4px}
p{margin:0 0 8px;max-width:75ch}
.sub,.note{color:var(--muted)}
.note{font-size:.875rem;margin-top:6px}
section{margin-top:36px}
figure{margin:0}
.warn{background:var(--warn-panel);border-left:4px solid var(--warn);padding:10px 14px;margin-top:20px}
.warn h2{font-size:1rem;color:var(--warn)}
.warn ul{margin:4px 0 0;padding-left:20px}
.warn li{overflow-wrap:anywhere}
ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 6px;padding:0;font-size:.875rem}
ul.legend span{display:inline-block;width:13px;height:13px;border-radius:3px;margin-right:6px;vertical-align:-1px}
svg{display:block;max-width:100%;height:auto}
svg text{font-size:13px;fill:var(--text)}
svg .m{fill:var(--muted)}
svg .v{font-variant-numeric:tabular-nums}
svg .o{fill:var(--on-fill)}
svg .g{stroke:var(--rule);stroke-width:1}
svg .a{stroke:var(--muted);stroke-width:1}
svg .w{stroke:var(--text);stroke-width:1.75}
svg .w.h{stroke:var(--page);stroke-width:4.5}
svg .c{fill:none;stroke-width:2.25;stroke-linejoin:round}
svg .d{stroke:var(--page);stroke-width:1.25}
.narrow{display:none}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:4px;margin-top:8px}
table{border-collapse:collapse;font-size:.875rem;width:100%}
caption{text-align:left;font-weight:600;padding:8px 10px}
th,td{padding:5px 10px;text-align:left;vertical-align:top;border-top:1px solid var(--rule)}
th{color:var(--muted);font-weight:600;background:var(--panel)}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}
td.n{white-space:nowrap}
.facts td{overflow-wrap:anywhere}
.facts{table-layout:fixed}
.facts th:first-child{width:13.5rem}
details{margin-top:12px}
summary{cursor:pointer;font-weight:600}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.875em;overflow-wrap:anywhere}
@media(max-width:760px){main{padding:16px 14px}.wide{display:none}.narrow{display:block}
.facts th:first-child{width:8rem}
th,td{padding:4px 7px}}
@media print{main{max-width:none;padding:0}section{break-inside:auto;margin-top:20px}figure,tr{break-inside:avoid}
.wide{display:block;width:100%}.narrow{display:none}.scroll{overflow:visible;border:0}td.n{white-space:normal}
table{font-size:7.5pt}th,td{padding:2px 4px}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def style_sheet() -> str:
    """The whole sheet. Dark follows the reader's setting and never reaches paper."""
    colours = "".join(f".p-{part}{{fill:var(--{part});background:var(--{part})}}" for part in _PARTS)
    # What the device computes has the colour of the run that it is the inside of.
    colours += ".p-compute{fill:var(--run);background:var(--run)}"
    colours += "".join(
        f".p-{part}{{fill:var(--{name});background:var(--{name})}}"
        for part, name in (("copy_in", "copy-in"), ("copy_out", "copy-out"))
    )
    colours += "".join(
        f".s-{name}{{fill:var(--{name});background:var(--{name})}}svg .c.s-{name}{{fill:none;stroke:var(--{name})}}"
        for name in _SERIES
    )
    light, dark = (";".join(f"--{name}:{value}" for name, value in theme.items()) for theme in (LIGHT, DARK))
    return (
        f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        + _RULES.strip().replace("\n", "")
        + colours
    )
