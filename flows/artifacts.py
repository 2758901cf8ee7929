"""What a run leaves on Prefect's pages: progress while it detects, then a table and a picture."""

import base64
import io
import time
from pathlib import Path
from typing import cast
from uuid import UUID

from PIL import Image
from prefect.artifacts import (
    create_image_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from flows import progress
from flows.summary import RunSummary, run_title, table_rows
from pipelines.errors import ArchiveError
from pipelines.pictures import timeline_picture
from pipelines.sites import Site
from pipelines.tables import load_published
from pipelines.timeline import read_timeline

UPDATE_EVERY_S = 2.0
"""Each update is a request to Prefect's server, and windows can take less time than that."""
PICTURE_PX = 900
"""Longer side of the picture; it travels inside the artifact."""


class DetectionProgress:
    """Callback of `pipelines.detection.detect`: tells the listener of each window and Prefect every few seconds."""

    def __init__(self, site: str, label: str) -> None:
        self._label = label
        # Outside of an event loop, as here, the call returns the id itself.
        artifact = create_progress_artifact(0.0, key=artifact_key(site, "progress"), description=label)
        self._artifact = cast(UUID, artifact)
        self._updated = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` windows are read."""
        progress.report(self._label, done, total)
        if done == total or time.monotonic() - self._updated >= UPDATE_EVERY_S:
            update_progress_artifact(self._artifact, 100.0 * done / max(total, 1))
            self._updated = time.monotonic()


def show_run(run: RunSummary) -> None:
    """Create the table and the pictures of a published run."""
    label = run_title(run)
    asked = f"{run.asked}\n\n" if run.asked and run.asked.off_days else ""
    create_table_artifact(
        [{"": row.what, "p50": row.value, "p5 - p95": row.interval, "remark": row.remark} for row in table_rows(run)],
        key=artifact_key(run.site, "counts"),
        description=f"{label}\n\n{asked}Scene `{run.scene}`, licence {run.licence}, weights {run.model_version}, "
        f"files in `{run.folder}`",
    )
    create_image_artifact(
        _encoded(Path(run.folder) / "overlay.png"),
        key=artifact_key(run.site, "overlay"),
        description=label,
    )
    waterfall = Path(run.folder) / "waterfall.png"
    if waterfall.exists():
        create_image_artifact(_encoded(waterfall), key=artifact_key(run.site, "waterfall"), description=label)


def show_timeline(site: Site, archive: Path) -> None:
    """Create the picture of a site over time, with what others published; none where older runs cannot be read."""
    try:
        timeline = read_timeline(site, archive)
    except ArchiveError as error:
        get_run_logger().warning("no timeline of %s: %s", site.id, error)
        return
    rendered = " - RENDERED IMAGERY, not photographs" if timeline.rendered else ""
    create_image_artifact(
        _encoded(io.BytesIO(timeline_picture(timeline, load_published()))),
        key=artifact_key(site.id, "timeline"),
        description=f"{site.name} over {len(timeline.moments)} dates{rendered}",
    )


def artifact_key(site: str, what: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return f"{site.replace('_', '-')}-{what}"


def _encoded(picture: Path | io.BytesIO) -> str:
    """The page shows whatever its browser can load: not a file of the machine that ran the flow, but its content."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
