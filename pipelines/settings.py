"""Where things are on this machine: every setting is an environment variable `OVERWATT_*` with a working default."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
"""Folder that holds `aoi/`, `data/` and `models/`: the repository, or site-packages when installed as a wheel."""

SAMPLE_CATALOG = ROOT / "data" / "scenes" / "catalog.json"
"""Static STAC catalog of the embedded rendered sample."""


class Settings(BaseSettings):
    """Settings read from the environment."""

    model_config = SettingsConfigDict(env_prefix="OVERWATT_")

    archive: Path = Path("archive")
    """Output root; one folder a run."""
    cache: Path = Path.home() / ".cache" / "overwatt"
    """Fetched scenes, kept for ever; safe to delete."""
    aoi: Path = ROOT / "aoi"
    """Folder of site files."""
    library: Path = Path("library")
    """Imagery that the user keeps, as `overwatt ingest` takes it in: a static STAC catalog with the images."""
    source: str = ""
    """Imagery sources when a command or flow names none, with `;` between: `library`, `sample`, `local:PATH`, ...

    Empty: `library` once it holds a scene, and `sample` until then, so that rendered scenes stay apart from real ones.
    """
    tolerance_days: int = Field(default=15, ge=0)
    """How far from the day asked for a scene may have been acquired to be taken for it."""
    max_cloud_percent: float | None = Field(default=None, ge=0, le=100)
    """Share of an image under cloud past which a STAC source does not offer it. Empty: all."""
    max_gsd_m: float | None = Field(default=None, gt=0)
    """Ground sampling distance in metres past which a STAC source does not offer an image. Empty: all."""
    acknowledge: str = ""
    """Licences that are acknowledged, with commas between, for imagery that asks for it: `esri-world-imagery`."""
    credentials: Path | None = None
    """JSON file of keys by host, `{"HOST": {"headers": {...}, "query": {...}}}`, for imagery that asks for them.

    Values may hold `${NAME}`, an environment variable. Empty: no keys. See `pipelines.scenes.credentials`.
    """
    weights: Path = ROOT / "models" / "weights" / "detector.safetensors"
    reader_weights: Path = ROOT / "models" / "weights" / "reader.safetensors"
    device: str = "auto"
    """`auto` (CUDA when there is one, else CPU), `cpu`, `cuda`, `cuda:1`, ..."""

    @model_validator(mode="after")
    def _choose_source(self) -> Self:
        if not self.source.strip():
            self.source = "library" if (self.library / "catalog.json").is_file() else "sample"
        return self
