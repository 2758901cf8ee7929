"""Every GDAL setting of the project, in one place: wrap each read or write of a raster in `with gdal_env(href):`."""

import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

__all__ = ["gdal_env", "is_url"]

# An image without georeference is refused with a sentence; rasterio's warning would only be printed above it.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_SETTINGS = {
    # Bytes of decoded blocks per process: rasterio sets the number as bytes, where GDAL itself would take it for MB.
    # The default, 5% of the memory, is not a bound. Enough for the 25 blocks of 512 px that a window of 2048 px touches
    # and those its neighbour touches too; more of it made no run faster and broke up the heap between the feature maps.
    "GDAL_CACHEMAX": 64 << 20,
    # Threads are the engine's, each with the file open for itself: GDAL's own would only wait for each other.
    "GDAL_NUM_THREADS": "1",
    # Half a JPEG must be an error, not grey pixels.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # A mask belongs to its file: a stray copy of the file keeps it.
    "GDAL_TIFF_INTERNAL_MASK": "TRUE",
}
_REMOTE_SETTINGS = {
    # Without it GDAL asks for a directory listing and for half a dozen sidecar files. Local files keep the default,
    # because world files, .ovr and .msk are found by that listing.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}


def is_url(href: str | Path) -> bool:
    """Whether `href` is an address of a web server rather than a path on this machine."""
    return str(href).lower().startswith(("http://", "https://"))


def gdal_env(href: str | Path = "") -> rasterio.Env:
    """Return the GDAL environment in which `href` (a path or an http(s) URL) is opened, read and written."""
    return rasterio.Env(**(_SETTINGS | _REMOTE_SETTINGS if is_url(href) else _SETTINGS))
