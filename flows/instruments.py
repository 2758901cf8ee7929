"""The detector and the lettering reader of a process, loaded once; no Prefect here."""

import atexit
import gc
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.settings import Settings

# What loads torch is imported where it is used: to deploy, to serve and to find nothing new need none of it.
if TYPE_CHECKING:
    from models.detector.detector import Detector
    from models.reader.reader import Reader


@lru_cache(maxsize=1)
def instruments(device: str, weights: Path | None = None) -> tuple[list["Detector"], "Reader"]:
    """Load the detector, on each device named, and the lettering reader, once for all scenes of a process.

    :param weights: of the detector; those of the settings if none
    :raises InputError: weights are missing or foreign, or a device does not exist here
    """
    from models.detector.detector import Detector
    from models.reader.reader import Reader

    # What is loaded by now stays. Without this the garbage collector goes through all of it again and again: 0.2 s each
    # time, in which no Python runs.
    gc.freeze()
    atexit.register(gc.unfreeze)  # at the end of the process it may be taken down as usual
    settings = Settings()
    device = settings.device if device == "auto" else device
    reader = Reader.load(settings.reader_weights, device.partition(",")[0])
    return Detector.load_each(weights or settings.weights, device), reader
