"""Licences that must be acknowledged before a source is used: asked for each time, recorded with when and how.

When is the day of the first time, which a small file in the cache remembers: what is made again later is then the same.
The file is a record and no consent, nothing is used because it is there.
"""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.errors import SourceError
from pipelines.scenes.cache import scratch_folder, writing
from pipelines.scenes.presets import Preset, load_presets

__all__ = ["acknowledged"]

log = logging.getLogger(__name__)


def acknowledged(preset: Preset, names: Sequence[str], how: str, cache: Path) -> str:
    """Return what a scene says of the acknowledgement of a preset's licence; empty where it asks for none.

    :param names: licences that the user acknowledges, by the names of the table of sources
    :param how: by which option or setting
    :param cache: folder of fetched scenes
    :raises SourceError: the licence is not among them, or one of them is unknown
    """
    known = sorted({one.acknowledge for one in load_presets().values() if one.acknowledge})
    if unknown := [name for name in names if name not in known]:
        raise SourceError(f"there is no licence '{unknown[0]}' to acknowledge (known: {', '.join(known)})")
    if not preset.acknowledge:
        return ""
    if preset.acknowledge not in names:
        raise SourceError(
            f"{preset.title} is used only after its licence is acknowledged ({preset.licence}, {preset.licence_url}: "
            f"{preset.derived}); if your use is within it, say so with --acknowledge {preset.acknowledge}"
        )
    path = cache / "acknowledged.json"
    records = _read(path)
    if preset.acknowledge not in records:
        records[preset.acknowledge] = f"on {datetime.now(UTC):%Y-%m-%d} by {how}"
        with scratch_folder(path) as scratch, writing(path):
            (scratch / path.name).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
            (scratch / path.name).replace(path)
        log.warning("%s: licence %s recorded as acknowledged", preset.title, preset.acknowledge)
    return f"{preset.acknowledge} {records[preset.acknowledge]}"


def _read(path: Path) -> dict[str, str]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: text for name, text in records.items() if isinstance(text, str)} if isinstance(records, dict) else {}
