"""Errors a user can cause, as one tree; `pipelines.errors` grows the rest of it.

    InputError                 anything wrong with what the user supplied: message is one sentence, exit code 2
    └── models
        ├── WeightsError       a weights file is missing, foreign, or was changed after it was written
        ├── DeviceError        the requested device does not exist on this machine
        └── DeviceMemoryError  the device has too little memory for a single window

A programmer's mistake is not in this tree: it stays a Python exception with its traceback.
"""


class InputError(Exception):
    """Wrong input by the user; the message names the file, the field and the remedy in one sentence."""


class WeightsError(InputError):
    """A weights file is missing, was not written by Overwatt, or does not match its own checksum."""


class DeviceError(InputError):
    """The requested compute device does not exist on this machine."""


class DeviceMemoryError(InputError):
    """The compute device has too little memory for a single window of the size asked for."""
