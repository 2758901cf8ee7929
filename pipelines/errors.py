"""Errors a user of the pipelines can cause, as one tree.

models.errors.InputError   message is one sentence naming file, field and remedy; the command line exits with 2
├── SiteError              a site file is missing or broken
├── SceneError             imagery cannot be found, read, dated or placed on the ground
│   └── NoSceneError       a source was searched and holds nothing for the site and the dates asked for
├── SourceError            an imagery source (catalog, server, folder) cannot be reached or answers nonsense
├── TableError             an equipment or accelerator table is missing, empty or has a wrong unit
├── EstimateError          counts, dates or options given to an estimate make no sense
└── ArchiveError           the archive (output root) cannot be written
"""

from models.errors import InputError

__all__ = [
    "ArchiveError",
    "EstimateError",
    "InputError",
    "NoSceneError",
    "SceneError",
    "SiteError",
    "SourceError",
    "TableError",
]


class SiteError(InputError):
    """A site file is missing or broken; the message names the file, the feature and the fault."""


class SceneError(InputError):
    """Imagery cannot be read, dated, or placed on the ground."""


class NoSceneError(SceneError):
    """A source was searched and holds nothing for the site and dates asked for."""


class SourceError(InputError):
    """An imagery source cannot be reached or answers with something that is not imagery metadata."""


class TableError(InputError):
    """An equipment or accelerator table is missing, empty, or has a column with a wrong unit."""


class EstimateError(InputError):
    """Counts, dates or options given to an estimate make no sense."""


class ArchiveError(InputError):
    """The archive (output root) cannot be written."""
