"""How QGIS draws the layers: symbols, labels, time settings and forms, as QGIS writes them, without QGIS.

The elements of a style are the same in a style file (QML) and in a project; `style_elements` makes them, `qml` wraps
them. QGIS 3.22 (Debian 12) and newer read them.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.classes import BY_NAME, LETTERING
from pipelines.census import DETECTED
from pipelines.legend import PALETTE

__all__ = [
    "QGIS_VERSION",
    "FormField",
    "Look",
    "class_look",
    "correction_looks",
    "outline_looks",
    "plural",
    "qml",
    "style_elements",
]

QGIS_VERSION = "3.22.16-Białowieża"
"""What the elements were written after, and the oldest that was seen to read them."""
LABELS_FROM_SCALE = 1500
"""A chiller is 8 mm long on the screen at 1:1500; labels of 2 mm fit beside it."""
WORDS_FROM_SCALE = 20_000
ZONES_FROM_SCALE = 12_000
INK, QUIET = "#20262d", "#6b7580"
ZONE_FILLS = {"roof": "#dfe3e8", "yard": "#eee7d8", "plant": "#f1dfda"}


@dataclass(frozen=True)
class Symbol:
    """A filled polygon."""

    fill: str
    """Colour #rrggbb."""
    fill_opacity: float
    line: str
    line_mm: float
    dashed: bool = False


@dataclass(frozen=True)
class Rule:
    """What is drawn with a symbol, and what the legend says of it."""

    label: str
    filter: str
    """QGIS expression; empty: everything."""
    symbol: Symbol


@dataclass(frozen=True)
class Label:
    """Text beside each polygon."""

    expression: str
    size_pt: float
    colour: str
    from_scale: int | None = None
    """Shown at 1:this and closer."""
    bold: bool = False
    priority: int = 5
    """From 0 to 10: which of two labels goes where there is room for one."""
    above: bool = False
    """Above the polygon instead of over its middle."""


@dataclass(frozen=True)
class FormField:
    """How one field stands in the form of a feature that is edited."""

    name: str
    alias: str
    """What the form calls it."""
    choices: Sequence[str] = ()
    """Values of a drop-down list; empty: typed."""
    default: str = ""
    """QGIS expression for a feature that is drawn; empty: nothing."""
    required: bool = False
    editable: bool = True


@dataclass(frozen=True)
class Look:
    """How one layer is drawn, and edited."""

    rules: Sequence[Rule]
    label: Label | None = None
    dated: bool = False
    """Features are shown from their `valid_from` until their `valid_until`."""
    form: Sequence[FormField] = ()
    """Fields of the form; empty: QGIS makes one by itself."""


def plural(cls: str) -> str:
    """What people call the units of a class."""
    words = {"battery": "batteries", "roof_lettering": "roof lettering"}
    name = words.get(cls, f"{cls.replace('_', ' ')}s")
    return f"{name} (fan cells)" if BY_NAME[cls].unit == "fan cell" else name


def class_look(cls: str, *, rendered: bool, observed: bool) -> Look:
    """How a class is drawn: counted units solid, less probable ones dashed; rendered imagery is named in the legend.

    :param rendered: the layer holds detections of rendered imagery
    :param observed: the layer holds detections of photographs
    """
    colour = PALETTE[cls]
    # A word covers the roof it is painted on.
    counted = Symbol(colour, 0.35 if cls == LETTERING.name else 0.85, _darker(colour), 0.15)
    faint = Symbol(colour, 0.15, _darker(colour), 0.15, dashed=True)
    rules = []
    kinds = [("RENDERED imagery: ", '"rendered"', rendered), ("", 'NOT "rendered"', observed)]
    for prefix, which, there in kinds:
        if there or (prefix == "" and not rendered):
            condition = f" AND {which}" if rendered and observed else ""
            rules.append(
                Rule(f"{prefix}probability {DETECTED:g} or more", f'"probability" >= {DETECTED:g}{condition}', counted)
            )
            rules.append(Rule(f"{prefix}less probable", f'"probability" < {DETECTED:g}{condition}', faint))
    if cls == LETTERING.name:
        label = Label('"text"', 11, INK, WORDS_FROM_SCALE, bold=True, priority=10)
    else:
        label = Label("format_number(100 * \"probability\", 0) || '%'", 7, _darker(colour), LABELS_FROM_SCALE)
    return Look(rules, label, dated=True)


def outline_looks(*, rendered: bool, observed: bool) -> Mapping[str, Look]:
    """How sites, zones and runs are drawn; the parameters are as those of `class_look`, of the runs."""
    perimeter = Symbol("#ffffff", 0.0, INK, 0.5, dashed=True)
    zones = [Rule(kind, f"\"kind\" = '{kind}'", Symbol(fill, 1.0, "#b4bac2", 0.2)) for kind, fill in ZONE_FILLS.items()]
    seen = Symbol("#ffffff", 0.55, "#9aa3ad", 0.25)
    name = "\"name\" || if(\"quality\" = 'proxy', ' (proxy outline)', '')"
    return {
        "sites": Look([Rule("perimeter", "", perimeter)], Label(name, 10, INK, bold=True, priority=9, above=True)),
        "zones": Look(zones, Label('"zone"', 7.5, QUIET, ZONES_FROM_SCALE, priority=1)),
        "runs": Look(
            [
                *([Rule("seen in RENDERED imagery", '"rendered"', seen)] if rendered else []),
                *([Rule("seen in photographs", 'NOT "rendered"', seen)] if observed else []),
            ],
            dated=True,
        ),
    }


def correction_looks(form: Sequence[FormField]) -> tuple[Look, Look]:
    """How detections that a person corrects are drawn, and the ground that was reviewed.

    Fills are faint, because it is the image under them that is looked at.
    """
    rules = []
    for cls, colour in PALETTE.items():
        sure = f"\"class\" = '{cls}' AND \"status\" IS NOT 'ignore'"
        rules.append(Rule(plural(cls), sure, Symbol(colour, 0.12, colour, 0.5)))
    known = ", ".join(f"'{cls}'" for cls in PALETTE)
    rules.append(
        Rule("ignore: neither right nor wrong", "\"status\" = 'ignore'", Symbol("#ffffff", 0.3, INK, 0.4, True))
    )
    rules.append(
        Rule("without a class", f'"class" IS NULL OR "class" NOT IN ({known})', Symbol("#ff0000", 0.4, "#ff0000", 0.8))
    )
    seen = "coalesce(\"text\", format_number(100 * \"probability\", 0) || '%', 'added')"
    label = Label(seen, 8, INK, LABELS_FROM_SCALE, priority=8)
    edge = Rule(
        "ground that was reviewed: nothing outside is trained on", "", Symbol("#ffffff", 0.0, "#ffd400", 0.7, True)
    )
    return Look(rules, label, form=form), Look([edge])


def qml(look: Look) -> str:
    """The style file of a layer."""
    root = ET.Element(
        "qgis",
        {
            "version": QGIS_VERSION,
            "styleCategories": "Symbology|Labeling|Temporal" + ("|Fields|Forms" if look.form else ""),
            "labelsEnabled": str(int(look.label is not None)),
            "hasScaleBasedVisibilityFlag": "0",
        },
    )
    root.extend(style_elements(look))
    root.extend(_form(look.form))
    ET.SubElement(root, "layerGeometryType").text = "2"
    ET.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ET.tostring(root, encoding="unicode") + "\n"


def style_elements(look: Look) -> list[ET.Element]:
    """The elements `temporal`, `renderer-v2` and `labeling` of a layer."""
    elements = [_temporal(look.dated), _renderer(look.rules)]
    if look.label is not None:
        elements.append(_labeling(look.label))
    return elements


def _form(fields: Sequence[FormField]) -> list[ET.Element]:
    """The elements that QGIS keeps of fields: widgets, names for people, defaults, constraints, what may be edited."""
    if not fields:
        return []
    names = ("fieldConfiguration", "aliases", "defaults", "constraints", "editable")
    widgets, aliases, defaults, constraints, editable = (ET.Element(name) for name in names)
    for index, field in enumerate(fields):
        kind = "ValueMap" if field.choices else "TextEdit"
        widget = ET.SubElement(widgets, "field", {"name": field.name, "configurationFlags": "None"})
        config = ET.SubElement(ET.SubElement(widget, "editWidget", {"type": kind}), "config")
        options = ET.SubElement(config, "Option", {"type": "Map"})
        if field.choices:
            listed = ET.SubElement(options, "Option", {"name": "map", "type": "List"})
            for value in field.choices:
                pair = ET.SubElement(listed, "Option", {"type": "Map"})
                ET.SubElement(pair, "Option", {"name": value, "type": "QString", "value": value})
        ET.SubElement(aliases, "alias", {"index": str(index), "field": field.name, "name": field.alias})
        default = {"field": field.name, "expression": field.default, "applyOnUpdate": "0"}
        ET.SubElement(defaults, "default", default)
        # Constraint 1: not null; strength 1: it cannot be saved without.
        needed = str(int(field.required))
        strengths = {"notnull_strength": needed, "unique_strength": "0", "exp_strength": "0"}
        ET.SubElement(constraints, "constraint", {"field": field.name, "constraints": needed} | strengths)
        ET.SubElement(editable, "field", {"name": field.name, "editable": str(int(field.editable))})
    return [widgets, aliases, defaults, constraints, editable]


def _temporal(dated: bool) -> ET.Element:
    # Mode 2: start and end in fields; limit mode 0: the end itself is no longer in.
    fields = {"startField": "valid_from", "endField": "valid_until"} if dated else {"startField": "", "endField": ""}
    others = {"durationField": "", "startExpression": "", "endExpression": "", "durationUnit": "min"}
    figures = {"mode": "2" if dated else "0", "enabled": str(int(dated)), "limitMode": "0", "fixedDuration": "0"}
    temporal = ET.Element("temporal", figures | fields | others | {"accumulate": "0"})
    fixed = ET.SubElement(temporal, "fixedRange")
    ET.SubElement(fixed, "start")
    ET.SubElement(fixed, "end")
    return temporal


def _renderer(rules: Sequence[Rule]) -> ET.Element:
    renderer = ET.Element(
        "renderer-v2",
        {"type": "RuleRenderer", "symbollevels": "0", "enableorderby": "0", "forceraster": "0", "referencescale": "-1"},
    )
    tree = ET.SubElement(renderer, "rules", {"key": "{rules}"})
    symbols = ET.SubElement(renderer, "symbols")
    for i, rule in enumerate(rules):
        given = {"filter": rule.filter} if rule.filter else {}
        ET.SubElement(tree, "rule", {"key": f"{{rule-{i}}}", "symbol": str(i), "label": rule.label} | given)
        symbols.append(_fill(str(i), rule.symbol))
    return renderer


def _fill(name: str, look: Symbol) -> ET.Element:
    symbol = ET.Element("symbol", {"name": name, "type": "fill", "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"})
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    options = {
        "color": _rgba(look.fill, look.fill_opacity),
        "style": "solid" if look.fill_opacity else "no",
        "outline_color": _rgba(look.line),
        "outline_style": "dash" if look.dashed else "solid",
        "outline_width": f"{look.line_mm:g}",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    tree = ET.SubElement(layer, "Option", {"type": "Map"})
    for key, value in options.items():
        ET.SubElement(tree, "Option", {"name": key, "type": "QString", "value": value})
        ET.SubElement(layer, "prop", {"k": key, "v": value})
    return symbol


def _labeling(label: Label) -> ET.Element:
    labeling = ET.Element("labeling", {"type": "simple"})
    settings = ET.SubElement(labeling, "settings", {"calloutType": "simple"})
    text = ET.SubElement(
        settings,
        "text-style",
        {
            "fieldName": label.expression,
            "isExpression": "1",
            "fontFamily": "DejaVu Sans",
            "namedStyle": "Bold" if label.bold else "Book",
            "fontWeight": "75" if label.bold else "50",
            "fontSize": f"{label.size_pt:g}",
            "fontSizeUnit": "Point",
            "textColor": _rgba(label.colour),
            "textOpacity": "1",
            "multilineHeight": "1",
        },
    )
    buffer = {"bufferDraw": "1", "bufferSize": "0.7", "bufferSizeUnits": "MM", "bufferColor": "255,255,255,220"}
    ET.SubElement(text, "text-buffer", buffer | {"bufferOpacity": "1", "bufferNoFill": "1"})
    # Placement 1: over the centroid; 0 would be around it.
    # Quadrant 4: on the point; 1: above it.
    placement = {"placement": "1", "priority": str(label.priority), "centroidInside": "1", "dist": "0"}
    placement |= {
        "layerType": "PolygonGeometry",
        "polygonPlacementFlags": "2",
        "quadOffset": "1" if label.above else "4",
    }
    if label.above:
        top = "make_point(x(centroid($geometry)), y_max($geometry))"
        placement |= {"geometryGeneratorEnabled": "1", "geometryGenerator": top}
        placement |= {"geometryGeneratorType": "PointGeometry", "layerType": "PointGeometry"}
    ET.SubElement(settings, "placement", placement)
    scale = {"scaleVisibility": str(int(label.from_scale is not None)), "scaleMin": "0"}
    ET.SubElement(
        settings,
        "rendering",
        {"drawLabels": "1", "obstacle": "0", "upsidedownLabels": "0", "scaleMax": str(label.from_scale or 0)} | scale,
    )
    return labeling


def _darker(colour: str) -> str:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return "#" + "".join(f"{round(channel * 0.6):02x}" for channel in channels)


def _rgba(colour: str, opacity: float = 1.0) -> str:
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return ",".join(str(value) for value in (*channels, round(255 * opacity)))
