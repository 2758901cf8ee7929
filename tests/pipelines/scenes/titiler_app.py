"""A real tile server, titiler, for one COG: XYZ by itself; TMS rows and WMTS (both encodings) lead to the same tiles.

python titiler_app.py COG PORT
"""

import sys
from collections.abc import Mapping

import morecantile
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from pyproj import CRS
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.core.factory import TilerFactory

LEVELS = range(10, 22)
UTM15 = morecantile.TileMatrixSet.custom([160000, 0, 840000, 9400000], CRS.from_epsg(32615), id="UTM15")
"""A matrix set of a server's own, as national mapping agencies have them."""
MATRIX_SETS = morecantile.tms.register({"UTM15": UTM15})


def capabilities(base: str, matrix_set: str, resource: bool) -> str:
    """After OGC 07-057r7, the way GeoServer and MapProxy write it."""
    known = MATRIX_SETS.get(matrix_set)
    matrices = "".join(
        f"""<TileMatrix><ows:Identifier>{m.id}</ows:Identifier><ScaleDenominator>{m.scaleDenominator}</ScaleDenominator>
        <TopLeftCorner>{m.pointOfOrigin[0]} {m.pointOfOrigin[1]}</TopLeftCorner><TileWidth>256</TileWidth>
        <TileHeight>256</TileHeight><MatrixWidth>{m.matrixWidth}</MatrixWidth><MatrixHeight>{m.matrixHeight}</MatrixHeight>
        </TileMatrix>"""
        for m in known.tileMatrices
        if int(m.id) in LEVELS
    )
    template = f"{base}/tiles/{{TileMatrixSet}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png?time={{Time}}"
    address = f'<ResourceURL format="image/png" resourceType="tile" template="{template}"/>' if resource else ""
    code = known.crs._pyproj_crs.to_epsg()
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Capabilities xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1"
  xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0">
  <ows:ServiceProvider><ows:ProviderName>Test tiles</ows:ProviderName></ows:ServiceProvider>
  <ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP><ows:Get xlink:href="{base}/wmts?">
    <ows:Constraint name="GetEncoding"><ows:AllowedValues><ows:Value>KVP</ows:Value></ows:AllowedValues>
    </ows:Constraint></ows:Get></ows:HTTP></ows:DCP></ows:Operation></ows:OperationsMetadata>
  <Contents>
    <Layer><ows:Title>Scene</ows:Title><ows:Identifier>scene</ows:Identifier>
      <ows:WGS84BoundingBox><ows:LowerCorner>-91 34</ows:LowerCorner><ows:UpperCorner>-89 36</ows:UpperCorner>
      </ows:WGS84BoundingBox>
      <Style isDefault="true"><ows:Identifier>default</ows:Identifier></Style><Format>image/png</Format>
      <Dimension><ows:Identifier>Time</ows:Identifier><Default>2025-10-19</Default>
        <Value>2025-08-22</Value><Value>2025-10-19</Value></Dimension>
      <TileMatrixSetLink><TileMatrixSet>{matrix_set}</TileMatrixSet></TileMatrixSetLink>{address}
    </Layer>
    <TileMatrixSet><ows:Identifier>{matrix_set}</ows:Identifier>
      <ows:SupportedCRS>urn:ogc:def:crs:EPSG::{code}</ows:SupportedCRS>{matrices}</TileMatrixSet>
  </Contents>
</Capabilities>"""


def application(cog: str) -> FastAPI:
    app = FastAPI()

    @app.get("/tms/{z}/{x}/{y}.{form}")
    def tms(z: int, x: int, y: int, form: str) -> RedirectResponse:
        return RedirectResponse(f"/tiles/WebMercatorQuad/{z}/{x}/{2**z - 1 - y}.{form}")

    @app.get("/dated/{day}/{z}/{x}/{y}.{form}")
    def dated(day: str, z: int, x: int, y: int, form: str) -> RedirectResponse:
        return RedirectResponse(f"/tiles/WebMercatorQuad/{z}/{x}/{y}.{form}")

    @app.get("/wmts/{encoding}/{matrix_set}/WMTSCapabilities.xml")
    def wmts(request: Request, encoding: str, matrix_set: str) -> Response:
        text = capabilities(str(request.base_url).rstrip("/"), matrix_set, encoding == "rest")
        return Response(text, media_type="application/xml")

    @app.get("/wmts")
    def get_tile(request: Request) -> RedirectResponse:
        asked: Mapping[str, str] = {key.upper(): value for key, value in request.query_params.items()}
        assert (asked["SERVICE"], asked["REQUEST"], asked["LAYER"], asked["STYLE"]) == (
            "WMTS",
            "GetTile",
            "scene",
            "default",
        )
        assert asked["TIME"] in ("2025-08-22", "2025-10-19")
        place = f"{asked['TILEMATRIX']}/{asked['TILECOL']}/{asked['TILEROW']}"
        return RedirectResponse(f"/tiles/{asked['TILEMATRIXSET']}/{place}.png")

    app.include_router(TilerFactory(path_dependency=lambda: cog, supported_tms=MATRIX_SETS).router)
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
