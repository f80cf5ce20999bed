"""One figure and one page of a report."""

import base64
import html
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ranking import PAIRINGS, STEPS


def figure(report: dict, path: Path) -> None:
    """Pairings, changes, refresh curve and credibility."""
    drawing = Figure(figsize=(11, 8), layout="constrained")
    pairings, changes, refresh, credible = drawing.subplots(2, 2).ravel()
    estimates = report["estimates"]
    with_ends(pairings, list(PAIRINGS), [estimates[f"{name} mAP"] for name in PAIRINGS])
    pairings.set_title("mAP by pairing, query->gallery")
    names = [f"{change} {measure}" for change in "DW" for measure in ("mAP", "CMC@1")]
    with_ends(changes, names, [estimates[name] for name in names])
    changes.axvline(-0.01, color="firebrick", linestyle="--")
    changes.set_title("Change against today")
    share = [step / STEPS for step in range(STEPS + 1)]
    steps = [estimates[f"refresh {beta:.2f}"] for beta in share]
    refresh.plot(share, [each["value"] for each in steps])
    refresh.fill_between(share, [each["lower"] for each in steps], [each["upper"] for each in steps], alpha=0.3)
    refresh.axhline(-0.01, color="firebrick", linestyle="--")
    refresh.set(title="Refresh", xlabel="share of the gallery re-embedded", ylabel="change of mAP")
    credible.bar([0.05 + bin / 10 for bin in range(10)], report["credibility"].get("histogram", [0] * 10), width=0.09)
    credible.set(title="Credibility of the old gallery", xlabel="posterior of the own identity", ylabel="items")
    FigureCanvasAgg(drawing).print_png(path)


def with_ends(axes, names: list[str], estimates: list[dict]) -> None:
    """A row an estimate, with its interval."""
    value = [each["value"] for each in estimates]
    below = [each["value"] - each["lower"] for each in estimates]
    above = [each["upper"] - each["value"] for each in estimates]
    axes.errorbar(value, names, xerr=[below, above], fmt="o", capsize=4)
    axes.invert_yaxis()
    axes.margins(y=0.3)


def page(report: dict, picture: Path, path: Path) -> None:
    """The figure and every measure, in one file."""
    measures = report["measures"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("measure", *PAIRINGS))
    rows = "".join(
        f"<tr><td>{measure}</td>{''.join(f'<td>{measures[name][measure]:.4f}</td>' for name in PAIRINGS)}</tr>"
        for measure in measures["old->old"]
    )
    estimates = "".join(
        f"<li>{html.escape(name)}: {each['value']:+.4f} [{each['lower']:+.4f}, {each['upper']:+.4f}]</li>"
        for name, each in report["estimates"].items()
    )
    left_out = "".join(f"<li>{html.escape(each)}</li>" for each in report["left_out"])
    image = base64.b64encode(picture.read_bytes()).decode()
    path.write_text(
        f"<!doctype html><meta charset='utf-8'><title>Audit</title><h1>Audit</h1>"
        f"<img src='data:image/png;base64,{image}'>"
        f"<table><tr>{head}</tr>{rows}</table><h2>90 % intervals by identity</h2><ul>{estimates}</ul>"
        f"<h2>Left out</h2><ul>{left_out}</ul>"
    )
