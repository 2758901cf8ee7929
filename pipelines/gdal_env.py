"""Every GDAL setting of the project, in one place: wrap each read or write of a raster in `with gdal_env(href):`."""

import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning

__all__ = ["gdal_env", "gdal_path", "is_url"]

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
    # Without it GDAL asks the server for a directory listing and for half a dozen sidecar files. Local files keep the
    # default, because world files, .ovr and .msk are found by that listing.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # GDAL remembers bytes by URL for the life of the process and would mix old and new bytes of a replaced file.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    # Give up on a transfer that stays under 1 kB/s for 20 s; a long transfer that moves is left alone.
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # The header of a COG in the first request; GDAL's default of 16 kB is too little for many blocks.
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    # Neighbouring blocks in one request.
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}


def is_url(href: str | Path) -> bool:
    """Whether `href` is an address of a web server rather than a path on this machine."""
    return str(href).lower().startswith(("http://", "https://"))


def gdal_path(href: str | Path) -> str:
    """Return what GDAL opens: URLs are read by range requests, never downloaded whole."""
    return f"/vsicurl/{href}" if is_url(href) else str(href)


def gdal_env(href: str | Path = "") -> rasterio.Env:
    """Return the GDAL environment in which `href` (a path or an http(s) URL) is opened, read and written."""
    return rasterio.Env(**(_SETTINGS | _REMOTE_SETTINGS if is_url(href) else _SETTINGS))
