"""Opens a project in the real QGIS, without a screen, and says as JSON what is in it; run by the system's Python.

python3 open_in_qgis.py PROJECT.qgz DATE... [--pictures FOLDER] [--view NAME]
"""

import argparse
import json
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsDateTimeRange,
    QgsFeatureRequest,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRectangle,
    QgsVectorLayer,
    QgsVectorLayerTemporalContext,
)
from qgis.PyQt.QtCore import QDateTime, QSize, Qt
from qgis.PyQt.QtGui import QColor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("project")
    parser.add_argument("dates", nargs="*")
    parser.add_argument("--pictures")
    parser.add_argument("--view")
    parser.add_argument("--scale", type=float)
    asked = parser.parse_args()
    application = QgsApplication([], False)
    application.initQgis()
    project = QgsProject.instance()
    opened = project.read(asked.project)
    span = project.timeSettings().temporalRange()
    told = {
        "opened": opened,
        "title": project.title(),
        "crs": project.crs().authid(),
        "step": [project.timeSettings().timeStep(), project.timeSettings().timeStepUnit()],
        "span": [span.begin().toString(Qt.ISODate), span.end().toString(Qt.ISODate)],
        "controller": project.readNumEntry("TemporalControllerWidget", "/NavigationMode")[0],
        "absolute_paths": project.readBoolEntry("Paths", "/Absolute")[0],
        "bookmarks": sorted(mark.name() for mark in project.bookmarkManager().bookmarks()),
        "groups": [group.name() for group in project.layerTreeRoot().findGroups()],
        "layers": {layer.name(): about(layer) for layer in project.mapLayers().values()},
        "dates": {day: counts(project, day) for day in asked.dates},
        "default_styles": default_styles(project),
    }
    if asked.pictures:
        for day in asked.dates:
            picture(project, day, asked)
    print(json.dumps(told))  # noqa: T201
    sys.stdout.flush()
    project.clear()
    application.exitQgis()


def about(layer: QgsVectorLayer) -> dict:
    times = layer.temporalProperties()
    renderer = layer.renderer()
    legend = [item.label() for item in renderer.legendSymbolItems()] if renderer else []
    return {
        "valid": layer.isValid(),
        "features": layer.featureCount(),
        "renderer": renderer.type() if renderer else None,
        "legend": legend,
        "labels": layer.labelsEnabled(),
        "temporal": times.isActive(),
        "crs": layer.crs().authid(),
        "subset": layer.subsetString(),
        "source": layer.source(),
    }


def frame(project: QgsProject, day: str) -> QgsDateTimeRange:
    """The frame of the controller that holds a day."""
    start = project.timeSettings().temporalRange().begin()
    step = int(project.timeSettings().timeStep())
    days = start.daysTo(QDateTime.fromString(f"{day}T00:00:00Z", Qt.ISODate))
    begin = start.addDays(days // step * step)
    return QgsDateTimeRange(begin, begin.addDays(step), True, False)


def counts(project: QgsProject, day: str) -> dict:
    shown = {}
    for layer in project.mapLayers().values():
        times = layer.temporalProperties()
        if not times.isActive():
            continue
        context = QgsVectorLayerTemporalContext()
        context.setLayer(layer)
        condition = times.createFilterString(context, frame(project, day))
        request = QgsFeatureRequest().setFilterExpression(condition)
        by_site: dict = {}
        for feature in layer.getFeatures(request):
            by_site[feature["site"]] = by_site.get(feature["site"], 0) + 1
        shown[layer.name()] = by_site
    return shown


def default_styles(project: QgsProject) -> dict:
    """What QGIS draws when the GeoPackage's layers are added by hand, without the project."""
    styles = {}
    for layer in project.mapLayers().values():
        if not layer.isSpatial():
            continue
        alone = QgsVectorLayer(layer.source().partition("|subset=")[0], "alone", "ogr")
        styles[alone.source().partition("layername=")[2]] = [
            alone.renderer().type(),
            alone.temporalProperties().isActive(),
        ]
    return styles


def picture(project: QgsProject, day: str, asked: argparse.Namespace) -> None:
    settings = QgsMapSettings()
    root = project.layerTreeRoot()
    visible = [node.layer() for node in root.findLayers() if node.isVisible() and node.layer().isSpatial()]
    settings.setLayers(visible)
    settings.setDestinationCrs(project.crs())
    settings.setTransformContext(project.transformContext())
    settings.setBackgroundColor(
        QColor(*(project.readNumEntry("Gui", f"/CanvasColor{c}Part")[0] for c in ("Red", "Green", "Blue")))
    )
    settings.setOutputSize(QSize(1400, 1000))
    settings.setOutputDpi(96)
    extent = QgsRectangle(project.viewSettings().defaultViewExtent())
    for mark in project.bookmarkManager().bookmarks():
        if asked.view and asked.view in mark.name():
            extent = QgsRectangle(mark.extent())
    if asked.scale:
        extent.scale(asked.scale)
    settings.setExtent(extent)
    settings.setIsTemporal(True)
    settings.setTemporalRange(frame(project, day))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(Path(asked.pictures) / f"{asked.view or 'all'}-{asked.scale or 1:g}-{day}.png"))


main()
