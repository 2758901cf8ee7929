"""The STAC catalog of scenes and results: a collection a site, an item for each scene and one for what was found.

Results point at the files of the run folders and, as derived from them, at their scene and at the weights that found
them. The documents are made from the run folders alone; hrefs are relative, so that archive and layers can be moved
together.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pystac.extensions.file import SCHEMA_URI as FILE_SCHEMA
from pystac.extensions.mlm import DEFAULT_VERSION as MLM_VERSION
from pystac.extensions.mlm import SCHEMA_URI_PATTERN as MLM_SCHEMA
from pystac.extensions.timestamps import SCHEMA_URI as TIMESTAMPS_SCHEMA

from models.classes import CLASSES, LETTERING, OBJECT_CLASSES
from pipelines.documents import PROCESSING_SCHEMA, to_json
from pipelines.layers.archive import Archive, Run
from pipelines.sites import Site

__all__ = ["CATALOG_ID", "catalog_documents"]

CATALOG_ID = "overwatt"
STAC_VERSION = "1.1.0"
JSON, GEOJSON = "application/json", "application/geo+json"
WORKING_GSD_M = 0.3
"""The detector sees every scene at this ground sampling distance."""
SCENE_FIELDS = ("gsd", "license")
SCENE_PREFIXES = ("view:", "eo:", "proj:")
OWN_SCENE_FIELDS = (
    "site",
    "scene_id",
    "scene_sha256",
    "source",
    "licence",
    "attribution",
    "rendered",
    "acquired_from",
    "acknowledged",
)
EVER = {"start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}
"""Of weights: any imagery, as the extension's best practices recommend."""

Document = dict[str, Any]


def catalog_documents(archive: Archive, sites: Sequence[Site], folder: Path) -> Mapping[str, bytes]:
    """Return every document of the catalog by its path relative to `folder`, where the catalog will lie."""
    names = {site.id: site.name for site in sites}
    documents: dict[str, Document] = {}
    children = []
    models = sorted({model for run in archive.runs for model in _models(run)})
    for site in sorted({run.site for run in archive.runs}):
        runs = [run for run in archive.runs if run.site == site]
        marks = _marks(runs)
        made = [
            (_scene_item(run, mark), _result_item(run, mark, folder)) for run, mark in zip(runs, marks, strict=True)
        ]
        items = [item for pair in made for item in pair]
        for item in items:
            documents[f"sites/{site}/{item['id']}.json"] = item
        documents[f"sites/{site}/collection.json"] = _site_collection(site, names.get(site, site), runs, items)
        children.append((f"./sites/{site}/collection.json", names.get(site, site)))
    for model in models:
        documents[f"models/{model}.json"] = _model_item(model)
    documents["models/collection.json"] = _model_collection(models)
    children.append(("./models/collection.json", "Weights"))
    title = "Overwatt" + (" (RENDERED IMAGERY among it)" if archive.rendered else "")
    documents["catalog.json"] = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": CATALOG_ID,
        "title": title,
        "description": "Cooling and power equipment of AI datacenters, counted in dated overhead imagery.",
        "links": [
            _link("root", "./catalog.json", title),
            *(_link("child", href, name) for href, name in children),
            _link("alternate", "./overwatt.gpkg", "All layers as a GeoPackage", "application/geopackage+sqlite3"),
            _link("alternate", "./overwatt.parquet", "All detections as GeoParquet", "application/vnd.apache.parquet"),
        ],
    }
    return {name: _text(document) for name, document in documents.items()}


def _marks(runs: Sequence[Run]) -> list[str]:
    """What makes ids unique: the day, where the archive holds a scene of a site under two dates."""
    scenes = [run.scene_id for run in runs]
    return [f"-{run.date}" if scenes.count(run.scene_id) > 1 else "" for run in runs]


def _scene_item(run: Run, mark: str) -> Document:
    """What was looked at; the image itself stays where it is."""
    said = run.item["properties"]
    kept = {name: value for name, value in said.items() if name in SCENE_FIELDS or name.startswith(SCENE_PREFIXES)}
    own = {f"overwatt:{name}": said.get(f"overwatt:{name}") for name in OWN_SCENE_FIELDS}
    properties = {
        "title": f"Scene {run.scene_id}" + (" (rendered imagery)" if run.rendered else ""),
        "datetime": _utc(run.acquired),
        **kept,
        **own,
    }
    earliest, released = said.get("overwatt:acquired_earliest"), said.get("overwatt:released")
    if earliest is not None:
        properties |= {"start_datetime": earliest, "end_datetime": _utc(run.acquired)}
    if released is not None:
        properties["published"] = f"{released}T00:00:00Z"
    prefixes = ("processing", "file", "mlm")
    extensions = [uri for uri in run.item["stac_extensions"] if not any(f"/{name}/" in uri for name in prefixes)]
    remote = [link | {"rel": "via"} for link in run.item["links"] if link["rel"] == "derived_from"]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": sorted([*extensions, *([TIMESTAMPS_SCHEMA] if released is not None else [])]),
        "id": f"scene-{run.scene_id}{mark}",
        "collection": run.site,
        "geometry": run.item["geometry"],
        "bbox": run.item["bbox"],
        "properties": properties,
        "assets": {},
        "links": [*_up(), *remote],
    }


def _result_item(run: Run, mark: str, folder: Path) -> Document:
    """What was found: the run folder's own item, with its files named from here and their checksums."""
    here = folder / "sites" / run.site
    assets = {}
    for key, asset in run.item["assets"].items():
        path = run.folder / asset["href"]
        content = path.read_bytes()
        assets[key] = asset | {
            "href": _relative(path, here),
            "file:size": len(content),
            # Multihash: 0x12 says SHA-256, 0x20 says 32 bytes.
            "file:checksum": f"1220{hashlib.sha256(content).hexdigest()}",
        }
    models = _models(run)
    if models and "detections" in assets:
        assets["detections"] |= {
            "processing:level": "L4",
            "processing:expression": {"format": "stac-mlm", "expression": f"../../models/{models[0]}.json"},
        }
    derived = [_link("derived_from", f"./scene-{run.scene_id}{mark}.json", f"scene {run.scene_id}", GEOJSON)]
    for model in models:
        made = _link("derived_from", f"../../models/{model}.json", f"weights {model}", GEOJSON)
        derived.append(made | {"mlm:name": _model_name(model), "processing:level": "L4"})
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": sorted({*run.item["stac_extensions"], FILE_SCHEMA, PROCESSING_SCHEMA}),
        "id": f"{run.item['id']}{mark}",
        "collection": run.site,
        "geometry": run.item["geometry"],
        "bbox": run.item["bbox"],
        "properties": run.item["properties"],
        "assets": assets,
        "links": [*_up(), *derived, _link("canonical", _relative(run.folder / "item.json", here), None, GEOJSON)],
    }


def _site_collection(site: str, name: str, runs: Sequence[Run], items: Sequence[Document]) -> Document:
    licences = {run.item["properties"]["license"] for run in runs}
    credits = sorted({str(run.item["properties"].get("overwatt:attribution") or "") for run in runs} - {""})
    rendered = any(run.rendered for run in runs)
    boxes = [run.item["bbox"] for run in runs]
    whole = [f(box[i] for box in boxes) for i, f in enumerate((min, min, max, max))]
    about = "Scenes that were looked at and what was found in them"
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": site,
        "title": f"{name} (RENDERED IMAGERY among it)" if rendered else name,
        "description": f"{about}; RENDERED IMAGERY, where overwatt:rendered is true." if rendered else f"{about}.",
        "license": licences.pop() if len(licences) == 1 else "other",
        "providers": [
            *({"name": credit, "roles": ["licensor"]} for credit in credits),
            {"name": "Overwatt", "roles": ["processor"], "processing:level": "L4"},
        ],
        "stac_extensions": [PROCESSING_SCHEMA],
        "extent": {
            "spatial": {"bbox": [whole]},
            "temporal": {"interval": [[_utc(f(run.acquired for run in runs)) for f in (min, max)]]},
        },
        "summaries": {
            "overwatt:rendered": sorted({run.rendered for run in runs}),
            "overwatt:licence": sorted({str(run.item["properties"].get("overwatt:licence")) for run in runs}),
            "gsd": sorted({run.census.native_gsd_m for run in runs}),
        },
        "links": [
            _link("root", "../../catalog.json", "Overwatt"),
            _link("parent", "../../catalog.json", "Overwatt"),
            *(_link("item", f"./{item['id']}.json", item["properties"]["title"], GEOJSON) for item in items),
        ],
    }


def _models(run: Run) -> list[str]:
    """Return the weights of a run, detector first: `detector-11ba093b+reader-2c984d47` names two."""
    return run.census.model_version.split("+")


def _model_name(model: str) -> str:
    return f"overwatt-{model}"


def _model_item(model: str) -> Document:
    """Describe weights by the machine-learning-model extension."""
    reads = model.startswith("reader")
    kind = "reader" if reads else "detector"
    tasks = ["image-captioning"] if reads else ["object-detection"]
    classes = [LETTERING.name] if reads else list(CLASSES)
    size = ["batch", "channel", "height", "width"]
    result = {"shape": [-1, 1], "dim_order": ["batch", "text"], "data_type": "other"}
    if not reads:
        # Centre x and y, length, width, heading, score of one class.
        result = {"shape": [-1, 6], "dim_order": ["detection", "box"], "data_type": "float32"}
    about = (
        "Reads words painted on roofs."
        if reads
        else f"Finds {', '.join(OBJECT_CLASSES)} as oriented boxes, and roof lettering, at {WORKING_GSD_M:g} m."
    )
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM_SCHEMA.format(version=MLM_VERSION)],
        "id": model,
        "collection": "models",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
        },
        "bbox": [-180, -90, 180, 90],
        "properties": {
            "title": f"Overwatt {kind} {model}",
            "description": f"{about} Trained on rendered imagery; see the model card beside the weights.",
            "datetime": None,
            **EVER,
            "gsd": WORKING_GSD_M,
            "license": "Apache-2.0",
            "version": model.partition("-")[2] or model,
            "mlm:name": _model_name(model),
            "mlm:architecture": "convolutional text recognition" if reads else "fully convolutional oriented boxes",
            "mlm:tasks": tasks,
            "mlm:framework": "PyTorch",
            "mlm:input": [
                {
                    "name": f"red, green and blue at {WORKING_GSD_M:g} m",
                    "bands": ["red", "green", "blue"],
                    "input": {"shape": [-1, 3, -1, -1], "dim_order": size, "data_type": "uint8"},
                }
            ],
            "mlm:output": [
                {
                    "name": "text" if reads else "oriented boxes",
                    "tasks": tasks,
                    "result": result,
                    "classification:classes": [{"value": i, "name": name} for i, name in enumerate(classes)],
                }
            ],
        },
        "assets": {
            "model": {
                "href": f"urn:overwatt:weights:{model}",
                "type": "application/octet-stream",
                "title": "Weights, named by the beginning of their checksum",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors",
            }
        },
        "links": [
            _link("root", "../catalog.json", "Overwatt"),
            _link("parent", "./collection.json", "Weights"),
            _link("collection", "./collection.json", "Weights"),
        ],
    }


def _model_collection(models: Sequence[str]) -> Document:
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": "models",
        "title": "Weights",
        "description": "Weights that the results were made with.",
        "license": "Apache-2.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[EVER["start_datetime"], None]]},
        },
        "links": [
            _link("root", "../catalog.json", "Overwatt"),
            _link("parent", "../catalog.json", "Overwatt"),
            *(_link("item", f"./{model}.json", f"Overwatt {model}", GEOJSON) for model in models),
        ],
    }


def _up() -> list[Document]:
    return [
        _link("root", "../../catalog.json", "Overwatt"),
        _link("parent", "./collection.json", None),
        _link("collection", "./collection.json", None),
    ]


def _link(rel: str, href: str, title: str | None, media_type: str = JSON) -> Document:
    return {"rel": rel, "href": href, "type": media_type} | ({} if title is None else {"title": title})


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _text(document: Document) -> bytes:
    return (
        json.dumps(to_json(document), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()
