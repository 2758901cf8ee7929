"""Imagery: where scenes are found, and how one becomes a local COG with its STAC item."""

from pipelines.scenes.local import LocalSource
from pipelines.scenes.sources import SOURCE_FORMS, open_source
from pipelines.scenes.stac import StacSource
from pipelines.scenes.tiles import TileSource
from pipelines.scenes.types import FetchedScene, ImagerySource, RasterDeclaration, Scene, SceneProblem

__all__ = [
    "SOURCE_FORMS",
    "FetchedScene",
    "ImagerySource",
    "LocalSource",
    "RasterDeclaration",
    "Scene",
    "SceneProblem",
    "StacSource",
    "TileSource",
    "open_source",
]
