"""What was measured, for people and for later."""

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
    return f"{short(statistics.median(values))} ({short(min(values))}–{short(max(values))})"


def figures(rounds, figure):
    return [r.get(figure) for r in rounds]


def ratio(ours, theirs):
    """forebay's median over another's; None where one is missing or nought."""
    ours, theirs = median(ours), median(theirs)
    return ours / theirs if ours is not None and theirs else None


def table(row, rounds):
    """rounds: {contender's name: [{figure: value}]}. A line for each figure: medians, in brackets the least and the most, and
    the ratios of the medians."""
    names = list(rounds)
    others = [name for name in names if name != "forebay"]
    lines = [[""] + names + [f"÷ {name}" for name in others]]
    for figure, unit in row.units.items():
        cells = [cell(figures(rounds[name], figure)) for name in names]
        ratios = [short(ratio(figures(rounds["forebay"], figure), figures(rounds[name], figure))) for name in others]
        lines.append([f"{figure}, {unit}"] + cells + ratios)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = [f"{row.name}: {row.title}"]
    for line in lines:
        out.append("  " + line[0].ljust(widths[0]) + "".join("  " + text.rjust(w) for text, w in zip(line[1:], widths[1:])))
    for name, note in row.notes.items():
        if name in rounds:
            out.append(f"  {name}: {note}")
    return "\n".join(out)
