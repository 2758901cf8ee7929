"""Errors a user of the pipelines can cause, as one tree.

models.errors.InputError   message is one sentence naming file, field and remedy; the command line exits with 2
├── SiteError              a site file is missing or broken
├── SceneError             imagery cannot be found, read, dated or placed on the ground
│   ├── NoSceneError       a source was searched and holds nothing for the site and the dates asked for
│   └── WindowError        a window of a raster cannot be read
├── SourceError            an imagery source (catalog, server, folder) cannot be reached or answers nonsense
├── CredentialsError       the file of keys is missing, broken or open to others, or names an unset variable
├── TableError             an equipment or accelerator table is missing, empty or has a wrong unit
├── ReferenceDataError     there is no snapshot of reference data, or what was downloaded is not the export
├── LabelError             a file of corrected labels is not of the scene, or a label in it makes no sense
├── EstimateError          counts, dates or options given to an estimate make no sense
├── ArchiveError           the archive (output root) cannot be written
├── DatabaseError          a database cannot be reached, entered or written
└── ExtraError             an optional part of Overwatt is not installed
"""

from dataclasses import dataclass

from models.errors import InputError

__all__ = [
    "ArchiveError",
    "CredentialsError",
    "Damage",
    "DatabaseError",
    "EstimateError",
    "ExtraError",
    "InputError",
    "LabelError",
    "NoSceneError",
    "ReferenceDataError",
    "SceneError",
    "SiteError",
    "SourceError",
    "TableError",
    "WindowError",
]


class SiteError(InputError):
    """A site file is missing or broken; the message names the file, the feature and the fault."""


class SceneError(InputError):
    """Imagery cannot be read, dated, or placed on the ground."""


class NoSceneError(SceneError):
    """A source was searched and holds nothing for the site and dates asked for."""


class WindowError(SceneError):
    """A window of a raster cannot be read; the message names file, window and reason."""

    def __init__(self, file: str, window: str, reason: str) -> None:
        """`window` says where in the file, `reason` is GDAL's."""
        super().__init__(f"Scene {file} cannot be read in the {window} ({reason}): get a fresh copy of it.")
        self.file, self.window, self.reason = file, window, reason

    def __reduce__(self) -> tuple[type["WindowError"], tuple[str, str, str]]:
        """All three travel between processes."""
        return type(self), (self.file, self.window, self.reason)


@dataclass(frozen=True)
class Damage:
    """A part of a raster without result, because a window that it needs cannot be read."""

    column: int
    row: int
    width: int
    height: int
    """In the raster's own pixels."""
    error: WindowError
    lost: str = "everything"
    """Or `large lettering`, which is looked for in windows of its own."""

    def __str__(self) -> str:
        """Where, what is missing there, and why."""
        place = f"{self.width} x {self.height} px at column {self.column}, row {self.row}"
        return f"{place} of {self.error.file}: {self.lost} ({self.error.reason})"


class SourceError(InputError):
    """An imagery source cannot be reached or answers with something that is not imagery metadata."""


class CredentialsError(InputError):
    """The file of keys is missing, broken or open to others, or names a variable that is not set."""


class TableError(InputError):
    """An equipment or accelerator table is missing, empty, or has a column with a wrong unit."""


class ReferenceDataError(InputError):
    """There is no snapshot of reference data, it tracks no such site, or what was downloaded is not the export."""


class LabelError(InputError):
    """A file of corrected labels cannot be read or written, is of another scene, or has a senseless label."""


class EstimateError(InputError):
    """Counts, dates or options given to an estimate make no sense."""


class ArchiveError(InputError):
    """The archive (output root) cannot be written."""


class DatabaseError(InputError):
    """A database cannot be reached, entered or written; the message never holds a password."""


class ExtraError(InputError):
    """An optional part of Overwatt is not installed; the message says how to install it."""
