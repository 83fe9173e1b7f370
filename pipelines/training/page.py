"""The report of an evaluation as one page: no other file, light or dark as the reader's screen is. Values in, HTML out.

The headings are those of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM, 2024 update); what an
evaluation cannot know stands on the model card, and the page says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from pipelines.training import plots
from pipelines.training.figures import worst
from pipelines.training.judge import Judgement

_STYLE = """
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f4f5f7; --warn: #b34700; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3f47; --soft: #1e2126; --warn: #ff9d5c; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line) } h3 { margin-top: 1.6rem }
table { border-collapse: collapse; margin: .6rem 0 1rem } th, td { padding: .25rem .8rem .25rem 0; text-align: left }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums }
thead th { border-bottom: 1px solid var(--line) }
td.text { text-align: left } tbody tr:nth-child(even) { background: var(--soft) }
.row { display: flex; flex-wrap: wrap; gap: 1rem } .row svg { width: 18rem; height: auto }
figure { margin: 0; max-width: 30rem } figure img { height: 15rem; max-width: 100%; object-fit: contain }
figcaption { font-size: .85rem }
.lead { font-size: 1.05rem } .warn { color: var(--warn) } code { overflow-wrap: anywhere } .scroll { overflow-x: auto }
"""


def page(report: dict[str, Any], held: Sequence[Judgement]) -> str:
    """
    Args:
        report: As ``evaluate`` writes it to report.json.
        held: The judgements that it is of, with their pictures.
    """
    title = f"{report['pipeline']} {report['version']} on the split {report['split']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(summary(report))}</p>',
        "<h2>Study design</h2>",
        "<p>Retrospective; every study goes in as DICOM files through the pipeline as it ships, and its own findings "
        "are held against the reference. Nothing is chosen here: operating points are those of the card. How often "
        "this split was opened before, this page cannot know: the model card says it.</p>",
        "<h2>Data</h2>",
        _data(report),
        "<h2>Reference standard</h2>",
        f"<p>The labels of the set, by the recipe of the pipeline ({escape(', '.join(report['parts']))}). Who gave "
        "them and how is said by the set and on the model card.</p>",
        "<h2>Data partitions</h2>",
        f"<p>Rows of <code>index.csv</code> with the split <code>{escape(report['split'])}</code>. Pictures of one "
        "patient (or of one group of look-alikes) are drawn together in the resamples.</p>",
        "<h2>Model</h2>",
        f"<p>{escape(report['pipeline'])} {escape(report['version'])}, weights SHA-256 "
        f"<code>{report['weights_sha256']}</code>. Architecture, training and intended use: its model card.</p>",
        "<h2>Evaluation</h2>",
        f"<p>Intervals are 95 %, {report['resamples']:,} bootstrap resamples by patient; under three patients there is "
        "none. Pictures that were not read count as wrong in sensitivity, specificity and Dice, and are left out of "
        "ROC, calibration and sizes.</p>",
        "<h2>Results</h2>",
        *(_class(each, held) for each in report["classes"]),
        *(_outline(each, held) for each in report["outlines"]),
        *(_boxes(each, held) for each in report["boxes"]),
        "<h2>Limitations</h2>",
        f"<p>{escape(_limits(report))}</p>",
        "<h2>Other information</h2>",
        f"<p>Not for clinical use. All values: <code>report.json</code>. Command: <code>{escape(report['command'])}"
        "</code></p>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def summary(report: dict[str, Any]) -> str:
    """The result in a sentence."""
    said = [f"{each['name']}: AUROC {spoken(each['auroc'])}" for each in report["classes"]]
    said += [f"{each['name']}: mean Dice {spoken(each['dice'])}" for each in report["outlines"]]
    said += [f"{each['name']}: F1 {spoken(each['f1'])}" for each in report["boxes"]]
    unread = f"; {report['n_unread']} were not read" if report["n_unread"] else ""
    return f"{report['n_pictures']} pictures of {report['n_patients']} patients{unread}. {'; '.join(said)}."


def spoken(held: dict[str, Any], digits: int = 3) -> str:
    """``0.871 (0.84 to 0.90)``."""
    if held["value"] is None:
        return "–"
    span = held["interval"]
    return f"{held['value']:.{digits}f}" + (f" ({span[0]:.{digits}f} to {span[1]:.{digits}f})" if span else "")


def _data(report: dict[str, Any]) -> str:
    rows = [("pictures judged", report["n_pictures"]), ("patients", report["n_patients"])]
    rows.append(("not read", report["n_unread"]))
    said = "".join(f"<li>{escape(each)}</li>" for each in report["unread"][:8])
    return table(("", "n"), rows) + (f'<p class="warn">Not read, because:</p><ul>{said}</ul>' if said else "")


def _class(each: dict[str, Any], held: Sequence[Judgement]) -> str:
    stated = "stated" if each["prevalence_is_stated"] else "that of these pictures; state another with --prevalence"
    rows = [
        ("AUROC", spoken(each["auroc"])),
        ("sensitivity at the operating point", spoken(each["sensitivity"])),
        ("specificity at the operating point", spoken(each["specificity"])),
        (f"positive predictive value at a prevalence of {each['prevalence']:.3g} ({stated})", spoken(each["ppv"])),
        ("Brier score (0 is best)", spoken(each["brier"])),
        ("mean certainty less the share that has it", _number(each["mean_certainty_less_share"], sign=True)),
    ]
    point = None
    if each["sensitivity"]["value"] is not None and each["specificity"]["value"] is not None:
        point = (1 - each["specificity"]["value"], each["sensitivity"]["value"])
    drawn = plots.roc(each["roc"], point) if each["roc"] else ""
    drawn += plots.calibration(each["calibration"]) if each["calibration"] else ""
    from_card = "" if each["cutoff"] is None else f", operating point {each['cutoff']:g} as on the card"
    there = "sensitivity", "specificity"
    return (
        f"<h3>{escape(each['name'])}</h3><p>{each['n']} pictures, {each['positives']} with it{from_card}.</p>"
        f"{table(('', 'value (95 % interval)'), rows)}"
        f'<div class="row">{drawn}</div>{_subgroups(each["subgroups"], "AUROC", there)}'
        f"{_worst(worst(held, 'classes', each['name']), 'classes', each['name'])}"
    )


def _outline(each: dict[str, Any], held: Sequence[Judgement]) -> str:
    rows = [
        ("mean Dice", spoken(each["dice"])),
        ("median Dice; worst", f"{each['dice_median']:.3f}; {each['dice_worst']:.3f}"),
        (f"mean surface Dice at 2 {each['surface_unit']}", spoken(each["surface_dice"])),
        (f"median 95th percentile Hausdorff distance, {each['surface_unit']}", _number(each["hausdorff95_median"])),
    ]
    return (
        f"<h3>{escape(each['name'])}: outline</h3><p>{each['n']} judged, {each['unread']} of them not read.</p>"
        f"{table(('', 'value (95 % interval)'), rows)}{_agreed(each['agreement'])}"
        f'<div class="row">{plots.distribution(each["values"])}{_bland_altman(each["agreement"])}</div>'
        f"{_subgroups(each['subgroups'], 'mean Dice', ())}"
        f"{_worst(worst(held, 'outlines', each['name']), 'outlines', each['name'])}"
    )


def _boxes(each: dict[str, Any], held: Sequence[Judgement]) -> str:
    rows = [
        ("F1 at an overlap (IoU) of 0.5", spoken(each["f1"])),
        ("found of those that are there", _number(each["sensitivity"])),
        ("right of those that were found", _number(each["ppv"])),
    ]
    return (
        f"<h3>{escape(each['name'])}: boxes</h3><p>{each['n']} pictures with {each['boxes']} in the reference.</p>"
        f"{table(('', 'value (95 % interval)'), rows)}{_agreed(each['agreement'])}"
        f'<div class="row">{_bland_altman(each["agreement"])}</div>{_subgroups(each["subgroups"], "F1", ())}'
        f"{_worst(worst(held, 'boxes', each['name']), 'boxes', each['name'])}"
    )


def _agreed(held: dict[str, Any] | None) -> str:
    if held is None:
        return ""
    unit, scale = plots.UNITS.get(held["unit"], held["unit"]), "{:+.3g}"
    low, high = (scale.format(limit) for limit in held["limits"])
    return (
        f"<p>Size, ours less the reference: {scale.format(held['mean'])} {unit} on average, limits of agreement {low} "
        f"to {high} {unit} (n = {held['n']}).</p>"
    )


def _bland_altman(held: dict[str, Any] | None) -> str:
    return plots.bland_altman(held) if held else ""


def _subgroups(groups: Sequence[dict[str, Any]], measure: str, beside: Sequence[str]) -> str:
    if not groups:
        return "<p>No column of the index divides these pictures.</p>"
    rows = [
        (f"{each['column']}: {each['value']}", each["n"], spoken(each["main"]), *(spoken(each[k], 2) for k in beside))
        for each in groups
    ]
    return f"<h4>Subgroups, the worst first</h4>{table(('', 'n', measure, *beside), rows)}"


def _worst(held: Sequence[Judgement], kind: str, name: str) -> str:
    figures = [_case(each, kind, name) for each in held if each.drawn is not None]
    legend = "" if kind == "classes" else " (left the reference, right ours)"
    return f'<h4>Worst cases{legend}</h4><div class="row">{"".join(figures)}</div>' if figures else ""


def _case(each: Judgement, kind: str, name: str) -> str:
    assert each.drawn is not None
    if kind == "classes":
        chance = each.classes[name]
        said = f"{'has it' if chance.is_there else 'has it not'}; certainty {chance.said or 0:.2f}"
    elif kind == "outlines":
        said = f"Dice {each.outlines[name].dice:.3f}"
    else:
        count = each.boxes[name]
        said = f"{count.hits} found, {count.wrong} too many, {count.missed} missed"
    caption = f"{each.row.get('path') or each.row['sop_uid']}: {said}"
    picture = plots.side_by_side(each.drawn, with_outlines=kind != "classes")
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _limits(report: dict[str, Any]) -> str:
    said = ["One set, one split: other scanners, other patients and another prevalence give other figures."]
    if report["n_patients"] < 30:
        said.append(f"{report['n_patients']} patients are few: the bootstrap then makes intervals too narrow.")
    if any(not each["prevalence_is_stated"] for each in report["classes"]):
        said.append("The predictive values are at the prevalence of the set, which is rarely that of a ward.")
    if any(each["surface_unit"] == "pixels" for each in report["outlines"]):
        said.append("The spacing of some pictures is not known: sizes and distances are in pixels there.")
    return " ".join(said)


def _number(value: float | None, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
