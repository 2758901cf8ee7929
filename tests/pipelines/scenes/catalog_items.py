"""Items as real catalogs serve them, written after the documented form of their collections; nothing was contacted."""

from typing import Any

import shapely

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def planetary_computer_naip(
    item_id: str, href: str, shape: shapely.Polygon, when: str = "2023-06-05T16:00:00Z", **properties: Any
) -> dict[str, Any]:
    """NAIP at the Planetary Computer: one `image` of four bands, the day alone known; STAC 1.0."""
    return _item(
        item_id,
        "naip",
        shape,
        {"gsd": 0.6, "datetime": when, "naip:year": when[:4], "naip:state": "tn", "proj:epsg": 32615}
        | {"providers": [{"name": "USDA Farm Service Agency", "roles": ["producer", "licensor"]}]}
        | properties,
        {
            "image": {
                "href": href,
                "type": COG,
                "roles": ["data"],
                "title": "RGBIR COG tile",
                "eo:bands": [
                    {"name": "Red", "common_name": "red"},
                    {"name": "Green", "common_name": "green"},
                    {"name": "Blue", "common_name": "blue"},
                    {"name": "NIR", "common_name": "nir", "description": "near-infrared"},
                ],
            },
            "metadata": {"href": f"{href}.txt", "type": "text/plain", "roles": ["metadata"], "title": "FGDC Metdata"},
            "thumbnail": {"href": f"{href}.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
            "rendered_preview": {"href": f"{href}.png", "type": "image/png", "roles": ["overview"]},
        },
    )


def earth_search_sentinel_2(
    item_id: str, href: str, shape: shapely.Polygon, when: str = "2025-08-22T16:52:11.024000Z", **properties: Any
) -> dict[str, Any]:
    """Sentinel-2 L2A at Earth Search v1: a true-colour `visual` beside single bands and a preview; STAC 1.0."""

    def band(name: str, colour: str) -> dict[str, Any]:
        return {
            "href": href.replace("TCI", name),
            "type": COG,
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": colour, "common_name": colour}],
            "gsd": 10,
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": 10, "scale": 0.0001}],
        }

    return _item(
        item_id,
        "sentinel-2-l2a",
        shape,
        {
            "datetime": when,
            "created": "2025-08-22T23:10:00.000Z",
            "updated": "2025-08-22T23:10:00.000Z",
            "platform": "sentinel-2b",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": 3.2,
            "proj:epsg": 32615,
            "grid:code": "MGRS-15SYU",
            "view:sun_azimuth": 146.2,
            "view:sun_elevation": 60.1,
            "s2:processing_baseline": "05.11",
            "earthsearch:boa_offset_applied": True,
        }
        | properties,
        {
            "blue": band("B02", "blue"),
            "green": band("B03", "green"),
            "red": band("B04", "red"),
            "thumbnail": {"href": f"{href}.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
            "preview": {"href": f"{href}.preview.tif", "type": COG, "roles": ["overview"]},
            "visual": {
                "href": href,
                "type": COG,
                "title": "True color image",
                "roles": ["visual"],
                "eo:bands": [{"name": name, "common_name": name} for name in ("red", "green", "blue")],
                "proj:shape": [10980, 10980],
                "proj:transform": [10, 0, 699960, 0, -10, 3900000],
            },
            "visual-jp2": {"href": "s3://sentinel-s2-l2a/15/S/YU/TCI.jp2", "type": "image/jp2", "roles": ["visual"]},
        },
    )  # fmt: skip


def version_1_1(item: dict[str, Any]) -> dict[str, Any]:
    """The same item as STAC 1.1 writes it: `bands` for `eo:bands` and `raster:bands`, `proj:code` for `proj:epsg`."""
    properties = dict(item["properties"])
    properties["proj:code"] = f"EPSG:{properties.pop('proj:epsg')}"
    assets = {}
    for key, asset in item["assets"].items():
        asset = dict(asset)
        bands = [{"name": band["name"], "eo:common_name": band["common_name"]} for band in asset.pop("eo:bands", [])]
        for raster in asset.pop("raster:bands", []):
            asset |= {"nodata": raster["nodata"], "data_type": raster["data_type"]}
            asset["raster:spatial_resolution"] = raster["spatial_resolution"]
        assets[key] = asset | ({"bands": bands} if bands else {})
    return item | {"stac_version": "1.1.0", "properties": properties, "assets": assets}


def collection(name: str, licence: str, provider: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": licence,
        "providers": [{"name": provider}],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }


def _item(
    item_id: str, collection: str, shape: shapely.Polygon, properties: dict[str, Any], assets: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "collection": collection,
        "geometry": shapely.geometry.mapping(shape),
        "bbox": list(shape.bounds),
        "properties": properties,
        "assets": assets,
        "links": [],
    }
