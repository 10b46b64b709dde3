"""Bar charts of forebay's cost over each of the others', for the README: one of proxies, one of whole stacks."""

import os
import subprocess
import tempfile

import report

# Middling grey and middling colours: they are read on white and on black, and nothing is drawn behind them.
SCRIPT = """
set terminal svg noenhanced size 1100,460 font "sans-serif,13"
set output "{svg}"
set title "{title}" textcolor rgb "#808080"
set style data histogram
set style histogram clustered gap 1
set style fill solid noborder
set boxwidth 0.9
set border 3 linecolor rgb "#808080"
set xtics rotate by -35 nomirror scale 0 textcolor rgb "#808080"
set ytics 0.25 nomirror textcolor rgb "#808080"
set yrange [0:{top}]
set grid ytics linecolor rgb "#808080" linewidth 0.3
set key outside top center horizontal textcolor rgb "#808080"
set rmargin 8
set arrow from graph 0, first 1 to graph 1, first 1 nohead linecolor rgb "#808080" linewidth 1.5
plot {plots}
"""
COLOURS = {
    "forebay": {"nginx": "#2f8f5b", "haproxy": "#3f7fd0"},
    "forebay 4 × 1": {"nginx+gunicorn sync 4 × 1": "#2f8f5b", "nginx+uWSGI 4 × 1": "#3f7fd0", "mod_wsgi 4 × 1": "#c07830",
                      "Passenger 4 × 1": "#9060b0"},
}
TOP_MAX = 2.0  # what is higher is cut off, and its number tells


def contender(result):
    """Which of forebay's contenders the others stand beside in this file."""
    measured = [row["rounds"] for row in result["rows"].values()]
    return next((ours for ours in COLOURS if any(ours in rounds for rounds in measured)), "forebay")


def cost_ratio(row, figure, ours, theirs):
    """Of rates, where more is better, the other way round. None where one is missing or nought."""
    values = [report.figures(row["rounds"].get(name, []), figure) for name in (ours, theirs)]
    return report.ratio(*(reversed(values) if figure in row.get("rates", ()) else values)) or None


def ratios(result, ours):
    """[(label, {other: ratio})]"""
    out = []
    for row in result["rows"].values():
        for figure, label in row["charted"].items():
            found = {other: cost_ratio(row, figure, ours, other) for other in COLOURS[ours]}
            if any(value is not None for value in found.values()):
                out.append((label, found))
    return out


def draw(result, svg):
    ours = contender(result)
    bars = ratios(result, ours)
    if not bars:
        raise SystemExit("bench: there is nothing to compare in the file")
    others = [other for other in COLOURS[ours] if any(found[other] is not None for _, found in bars)]
    top = min(TOP_MAX, max(value for _, found in bars for value in found.values() if value is not None)) + 0.15
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data")
        with open(data, "w") as f:
            for label, found in bars:
                cells = ["?" if found[other] is None else f"{found[other]:.4f}" for other in others]
                f.write("\t".join([f'"{label}"'] + cells) + "\n")
        script = SCRIPT.format(svg=os.path.join(folder, "svg"), title=title(result), top=max(top, 1.2),
                               plots=plots(data, ours, others))
        subprocess.run(["gnuplot"], input=script, text=True, check=True)
        os.makedirs(os.path.dirname(os.path.abspath(svg)), exist_ok=True)
        with open(os.path.join(folder, "svg")) as drawn, open(svg, "w") as f:
            f.write(drawn.read())


def title(result):
    shown = (*COLOURS["forebay"], "gunicorn", "uWSGI", "mod_wsgi", "Passenger")
    named = str([list(row["rounds"]) for row in result["rows"].values()])  # who takes part
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("forebay", *shown) if name in named and name in result["versions"])
    return f"forebay's cost ÷ theirs, less is better ({versions})"


def height(i):
    """Of the i-th other's bars."""
    return f"column({i + 2}) > {TOP_MAX} ? {TOP_MAX} : column({i + 2})"


def plots(data, ours, others):
    """Bars, and their numbers above them."""
    out = []
    for i, other in enumerate(others):
        source = f'"{data}"' if not out else "''"
        out.append(f"{source} using ({height(i)}):xtic(1) title 'forebay ÷ {other}' linecolor rgb '{COLOURS[ours][other]}'")
    for i in range(len(others)):
        shift = (i - (len(others) - 1) / 2) / (len(others) + 1)
        number = f"sprintf(column({i + 2}) < 0.01 ? '%.3f' : '%.2f', column({i + 2}))"
        out.append(f"'' using ($0 + {shift:.3f}):({height(i)}):({number}) with labels "
                   "offset 0, 0.5 font ',9' textcolor rgb '#808080' notitle")
    return ", ".join(out)
