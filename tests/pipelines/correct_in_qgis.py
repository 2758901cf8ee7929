"""Corrects a label file in the real QGIS, without a screen, as a person does, and says as JSON what QGIS made of it.

Run by the system's Python: python3 correct_in_qgis.py FILE.gpkg EDITS.json [--picture PNG --scene TIF]
"""

import argparse
import json
import os
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
    QgsVectorLayerUtils,
)
from qgis.PyQt.QtCore import QSize


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("edits")
    parser.add_argument("--picture")
    parser.add_argument("--scene")
    parser.add_argument("--extent", type=float, nargs=4)
    asked = parser.parse_args()
    application = QgsApplication([], False)
    application.initQgis()
    labels = QgsVectorLayer(f"{asked.file}|layername=labels", "labels", "ogr")
    reviewed = QgsVectorLayer(f"{asked.file}|layername=reviewed", "reviewed", "ogr")
    # Layers that outlive the application end the process with a fault; those of a project go with it.
    QgsProject.instance().addMapLayers([labels, reviewed])
    told = {"labels": about(labels), "reviewed": about(reviewed)}
    told["committed"] = edit(labels, json.loads(Path(asked.edits).read_text()))
    told["after"] = labels.featureCount()
    if asked.picture:
        picture(asked, labels, reviewed)
    print(json.dumps(told))  # noqa: T201
    sys.stdout.flush()
    QgsProject.instance().clear()
    # Without taking QGIS down, which can end in a fault when everything is said.
    os._exit(0)


def about(layer: QgsVectorLayer) -> dict:
    fields = {}
    for index, field in enumerate(layer.fields()):
        setup = layer.editorWidgetSetup(index)
        fields[field.name()] = {
            "widget": setup.type(),
            "config": setup.config(),
            "alias": field.alias(),
            "default": layer.defaultValueDefinition(index).expression(),
            "read_only": layer.editFormConfig().readOnly(index),
            "required": bool(layer.fieldConstraints(index) & 1),
        }
    return {
        "valid": layer.isValid(),
        "features": layer.featureCount(),
        "renderer": layer.renderer().type(),
        "legend": [item.label() for item in layer.renderer().legendSymbolItems()],
        "labels": layer.labelsEnabled(),
        "crs": layer.crs().authid(),
        "fields": fields,
    }


def edit(layer: QgsVectorLayer, edits: dict) -> bool:
    """Delete features, draw new ones through the form's defaults, change attributes, save."""
    layer.startEditing()
    for fid in edits["delete"]:
        layer.deleteFeature(fid)
    for wkt, values in edits["draw"]:
        given = {layer.fields().indexOf(name): value for name, value in values.items()}
        feature: QgsFeature = QgsVectorLayerUtils.createFeature(layer, QgsGeometry.fromWkt(wkt), given)
        layer.addFeature(feature)
    for fid, name, value in edits["change"]:
        layer.changeAttributeValue(fid, layer.fields().indexOf(name), value)
    return layer.commitChanges()


def picture(asked: argparse.Namespace, labels: QgsVectorLayer, reviewed: QgsVectorLayer) -> None:
    scene = QgsRasterLayer(asked.scene, "scene")
    settings = QgsMapSettings()
    settings.setLayers([labels, reviewed, scene])
    settings.setDestinationCrs(labels.crs())
    settings.setOutputSize(QSize(1400, 1000))
    settings.setOutputDpi(96)
    extent = QgsRectangle(*asked.extent) if asked.extent else QgsRectangle(scene.extent())
    extent.scale(1.03)
    settings.setExtent(extent)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(asked.picture)


main()
