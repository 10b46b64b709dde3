"""What was measured, for people and for later."""

import math
import statistics


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def short(value):
    """Three digits that count."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def cell(values):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return short(values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{short(middle)} ({short(low)}–{short(high)})"


def figures(rounds, figure):
    return [r.get(figure) for r in rounds]


def ratios(ours, theirs):
    """What forebay's figure is of another's, round by round: they took turns, so that what made the machine slow made both slow. Who
    did not take part has no rounds."""
    return [a / b for a, b in zip(ours, theirs, strict=bool(ours and theirs)) if a is not None and b]


def ratio(ours, theirs):
    """Their median; None where there is none."""
    return median(ratios(ours, theirs))


def ratio_cell(ours, theirs):
    """With the bounds of its 95 % confidence interval, which for a median are two of the ratios themselves."""
    found = sorted(ratios(ours, theirs))
    if not found:
        return "-"
    middle = short(median(found))
    reach = 0.98 * len(found) ** 0.5  # ranks to both sides of the middle
    low, high = math.floor(len(found) / 2 - reach), math.ceil(len(found) / 2 + reach)
    if low < 0:
        return middle  # too few to tell
    return f"{middle} ({short(found[low])}–{short(found[high - 1])})"


def aligned(lines):
    """The first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  " + line[0].ljust(widths[0]) + "".join("  " + text.rjust(w) for text, w in zip(line[1:], widths[1:]))
            for line in lines]


def by_contender(row, rounds):
    """A line for each contender, with each figure and by how much forebay's is that of it."""
    beside = {c.name: c.ours for c in row.contenders}
    lines = [[""] + [text for figure, unit in row.units.items() for text in (f"{figure}, {unit}".rstrip(", "), "forebay ÷")]]
    for name, done in rounds.items():
        ours = rounds.get(beside[name], [])
        lines.append([name])
        for figure in row.units:
            theirs = figures(done, figure)
            lines[-1] += [cell(theirs), "" if ours is done or not ours else ratio_cell(figures(ours, figure), theirs)]
    return lines


def by_figure(row, rounds):
    """Several: a line for each of them, and the ratios behind."""
    others = [name for name in rounds if name != "forebay"]
    lines = [[""] + list(rounds) + [f"÷ {name}" for name in others]]
    for figure, unit in row.units.items():
        ours = figures(rounds["forebay"], figure)
        lines.append([f"{figure}, {unit}"] + [cell(figures(done, figure)) for done in rounds.values()]
                     + [ratio_cell(ours, figures(rounds[name], figure)) for name in others])
    return lines


def table(row, rounds):
    """rounds: {contender's name: [{figure: value}]}. Medians, in brackets the middle half, and medians of the ratios."""
    out = [f"{row.name}: {row.title}"]
    out += aligned(by_contender(row, rounds) if row.by_line or len(row.units) == 1 else by_figure(row, rounds))
    out += [f"  {name}: {note}" for name, note in row.notes.items() if name in rounds]
    out += [f"  {name}: {remark}" for name, done in rounds.items() for remark in row.remarks(done)]
    return "\n".join(out)


def markdown(result):
    """All rows of a file: a line for each figure, a column for each contender, medians only."""
    names = list(dict.fromkeys(name for row in result["rows"].values() for name in row["rounds"]))
    lines = [[""] + names, ["---"] + ["--:"] * len(names)]
    for row in result["rows"].values():
        for figure, unit in row["units"].items():
            lines.append([f"{row['title']}: {figure}, {unit}".rstrip(", ")]
                         + [short(median(figures(row["rounds"].get(name, []), figure))) for name in names])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
