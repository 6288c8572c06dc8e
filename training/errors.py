"""Failures a user of the trainer can expect, chosen by what to do next.

TrainingError
├── DataError        fix the data set
├── DownloadError    try again, or bring the files
├── RecipeError      correct the command
├── ModelError       choose another network or other pictures
├── DeviceError      choose another device
├── RunError         name another run directory
├── DivergedError    lower the learning rate
└── InterruptedRunError   resume when ready
"""


class TrainingError(Exception):
    """Training cannot go on for a reason its user can act upon."""


class DataError(TrainingError):
    """A data set is missing, broken or not what its name promises; fix its files."""


class DownloadError(TrainingError):
    """A file could not be fetched whole; try again, or put it into the folder WEIR_DATA names."""


class RecipeError(TrainingError):
    """No such recipe, or a setting out of its range; correct the command."""


class ModelError(TrainingError):
    """The network does not fit these classes or pictures; choose others."""


class DeviceError(TrainingError):
    """The device asked for is not here; choose another."""


class RunError(TrainingError):
    """The run directory is missing, broken, or in use; name another one."""


class DivergedError(TrainingError):
    """The loss is no longer a number; lower the learning rate."""


class InterruptedRunError(TrainingError):
    """Training was stopped on request and left a checkpoint; resume it when ready."""
