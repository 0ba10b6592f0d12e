"""Tables, JSON and a plot of what was measured."""

import json
import math
import statistics

COLUMNS = [
    ("wall", "wall s", 2),
    ("cpu", "CPU s", 2),
    ("user", "user s", 2),
    ("system", "system s", 2),
    ("mb_a_second", "MB/s", 1),
    ("inputs_a_second", "inputs/s", 0),
    ("cpu_ms_a_mb", "CPU ms/MB", 2),
    ("rss_mb", "peak RSS MB", 0),
    ("anonymous_mb", "anonymous MB", 0),
    ("read_mb", "read MB", 0),
    ("written_mb", "written MB", 0),
]

# Ratios that the plot has a line for.
MARKS = [0.5, 1, 2, 5, 10, 20, 50, 100]


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def ratios(mode, key):
    """Core's figure over ours, of neighbouring runs: smallest, median, largest."""
    pairs = zip(mode["runs"]["cofferdam"], mode["runs"]["core"])
    found = sorted(core[key] / ours[key] for ours, core in pairs if ours.get(key))
    return (found[0], statistics.median(found), found[-1]) if found else None


def table(modes):
    lines = []
    for mode in modes:
        present = [column for column in COLUMNS if column[0] in mode["runs"]["core"][0]]
        lines += ["", f"**{mode['title']}**", ""]
        lines += ["| | " + " | ".join(title for _, title, _ in present) + " |"]
        lines += ["|---|" + "--:|" * len(present)]
        for name, runs in mode["runs"].items():
            cells = (f"{median(runs, key):,.{digits}f}" for key, _, digits in present)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        cells = []
        for key, _, _ in present:
            found = ratios(mode, key)
            cells.append("" if found is None else f"{found[1]:.2f} ({found[0]:.2f} to {found[2]:.2f})")
        lines.append("| Core / ours | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(modes):
    """Bars of how many times faster, by the clock and by CPU time, from 1 on a logarithmic scale."""
    rows = [(mode["title"], ratios(mode, "wall"), ratios(mode, "cpu")) for mode in modes]
    found = [value for _, *both in rows for one in both if one for value in one]
    lowest, highest = min([0.8, *found]), max([2.0, *found]) * 1.3
    left, width, height = 430, 460, 40

    def x(value):
        return left + width * math.log(value / lowest) / math.log(highest / lowest)

    total = 60 + height * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{total}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="8" y="20">Bitcoin Core / Cofferdam: dark by the clock, light by CPU time</text>',
    ]
    for mark in (mark for mark in MARKS if lowest <= mark <= highest):
        colour = "#c33" if mark == 1 else "#ddd"
        out.append(
            f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="30" y2="{total - 14}" stroke="{colour}"/>'
            f'<text x="{x(mark):.1f}" y="20" text-anchor="middle">{mark}</text>'
        )
    for index, (title, wall, cpu) in enumerate(rows):
        top = 36 + height * index
        out.append(f'<text x="{left - 8}" y="{top + 19}" text-anchor="end">{title}</text>')
        for found, offset, colour in ((wall, 0, "#1f5f8b"), (cpu, 14, "#9cc4de")):
            if not found:
                continue
            low, middle, high = (x(value) for value in found)
            start, line = min(x(1), middle), top + offset + 6
            out.append(
                f'<rect x="{start:.1f}" y="{top + offset}" width="{abs(middle - x(1)):.1f}" height="12" '
                f'fill="{colour}"/>'
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{line}" y2="{line}" stroke="black"/>'
                f'<text x="{max(high, x(1)) + 6:.1f}" y="{line + 4}">{found[1]:.2f}</text>'
            )
    return "\n".join([*out, "</svg>"]) + "\n"


def rounded(value):
    """Floating point with as many digits as mean something."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def lines(value, indent=""):
    """JSON where what holds nothing that holds something is one line."""
    inner = indent + " "
    if isinstance(value, dict) and any(isinstance(each, (dict, list)) for each in value.values()):
        each = (f"{inner}{json.dumps(key)}: {lines(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(each) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return "[\n" + ",\n".join(inner + lines(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value)


def write(place, facts, modes):
    place.mkdir(parents=True, exist_ok=True)
    text = table(modes)
    (place / "result.json").write_text(lines(rounded({**facts, "modes": modes})) + "\n")
    (place / "result.md").write_text(text)
    (place / "result.svg").write_text(plot(modes))
    return text
