"""STAC documents held against the core schemas that pystac brings along, and against what their extensions ask for.

The schemas of the extensions come from the network, which tests do not use: the rules here say in Python what those
of the versions named ask of the fields that are written.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pystac.validation

CORE = Path(pystac.validation.__file__).parent / "jsonschemas"
NAMES = ("item", "catalog", "collection")


def check_stac(document: Mapping[str, Any]) -> None:
    """Fail where a STAC item, catalog or collection is not valid."""
    check_core(document)
    uris = document.get("stac_extensions", [])
    assert len(set(uris)) == len(uris)
    prefixes = {re.search(r"github\.io/([a-z-]+)/v\d", uri).group(1) for uri in uris}  # type: ignore[union-attr]
    used = set()
    for fields in fields_of(document):
        used |= {name.partition(":")[0] for name in fields if ":" in name}
        check_fields(fields)
    names = {"proj": "projection", "view": "view", "eo": "eo", "processing": "processing", "file": "file", "mlm": "mlm"}
    for prefix, extension in names.items():
        own = [fields for fields in fields_of(document, links=False) if any(k.startswith(f"{prefix}:") for k in fields)]
        assert not own or extension in prefixes, f"{prefix}: is used, but {extension} is not declared"
        assert extension not in prefixes or prefix in used, f"{extension} is declared, but not used"
    if "timestamps" in prefixes:
        assert "published" in document["properties"]


def fields_of(document: Mapping[str, Any], *, links: bool = True) -> list[Mapping[str, Any]]:
    parts = [document.get("properties", {}), *document.get("assets", {}).values(), *document.get("providers", [])]
    return [*parts, *(document.get("links", []) if links else [])]


def check_fields(fields: Mapping[str, Any]) -> None:
    """What the extensions projection 2.0, view 1.0, eo 2.0, processing 1.2 and file 2.1 ask of their fields."""
    limits = {
        "view:off_nadir": (0, 90),
        "view:sun_azimuth": (0, 360),
        "view:sun_elevation": (-90, 90),
        "eo:cloud_cover": (0, 100),
    }
    for name, (low, high) in limits.items():
        assert low <= fields.get(name, low) <= high, name
    if fields.get("proj:code") is not None:
        assert re.fullmatch(r"[A-Z]+:[A-Za-z0-9]+", fields["proj:code"])
    assert len(fields.get("proj:shape", [0, 0])) == 2
    assert len(fields.get("proj:transform", [0] * 6)) in (6, 9)
    for name in ("processing:level", "processing:lineage"):
        assert isinstance(fields.get(name, ""), str)
    software = fields.get("processing:software", {})
    assert all(isinstance(value, str) for value in software.values())
    if "processing:expression" in fields:
        assert {"format", "expression"} <= set(fields["processing:expression"])
    if "file:checksum" in fields:
        assert re.fullmatch(r"1220[0-9a-f]{64}", fields["file:checksum"])
    assert isinstance(fields.get("file:size", 0), int)


def check_core(document: Mapping[str, Any]) -> None:
    """Fail where the STAC validator says that a document is not STAC 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from stac_validator.validate import StacValidate
    version = document["stac_version"]
    schemas = {
        f"https://schemas.stacspec.org/v{version}/{path}": str(file)
        for file in (CORE / "stac-spec" / f"v{version}").glob("*.json")
        for kind in NAMES
        for path in [f"{kind}-spec/json-schema/{file.name}"]
    }
    schemas |= {f"https://geojson.org/schema/{file.name}": str(file) for file in (CORE / "geojson").glob("*.json")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        validator = StacValidate(str(path), core=True, schema_map=schemas)
        assert validator.run(), validator.message
