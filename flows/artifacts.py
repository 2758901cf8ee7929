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

from flows import progress
from flows.summary import RunSummary, run_title, table_rows

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
    """Create the table and the picture of a published run."""
    label = run_title(run)
    create_table_artifact(
        [{"": row.what, "p50": row.value, "p5 - p95": row.interval, "remark": row.remark} for row in table_rows(run)],
        key=artifact_key(run.site, "counts"),
        description=f"{label}\n\nScene `{run.scene}`, licence {run.licence}, weights {run.model_version}, "
        f"files in `{run.folder}`",
    )
    create_image_artifact(
        _data_uri(Path(run.folder) / "overlay.png"),
        key=artifact_key(run.site, "overlay"),
        description=label,
    )


def artifact_key(site: str, what: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return f"{site.replace('_', '-')}-{what}"


def _data_uri(picture: Path) -> str:
    """The page shows whatever its browser can load: not a file of the machine that ran the flow, but its content."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        content = io.BytesIO()
        small.save(content, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
