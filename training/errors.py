"""Expected failures of training; the class says what the user should do next.

TrainingError
├── DataError        fix the data set
├── DownloadError    try again, or provide the files
├── MissingExtra     install the extra
├── RecipeError      correct the command
├── ModelError       choose another network or other images
├── DeviceError      choose another device
├── RunError         name another run directory
├── DivergedError    lower the learning rate
├── DistributedError start all processes again
└── InterruptedRunError   resume when ready
"""


class TrainingError(Exception):
    """Base of the expected failures of training."""


class DataError(TrainingError):
    """A data set is missing, broken or of another kind; fix its files."""


class DownloadError(TrainingError):
    """A download failed; try again, or put the file into the folder that WEIR_DATA names."""


class MissingExtra(TrainingError):
    """A package of an optional extra is not installed; install the extra."""


class RecipeError(TrainingError):
    """The recipe is unknown or a setting is invalid; correct the command."""


class ModelError(TrainingError):
    """The network does not fit these classes or images; choose others."""


class DeviceError(TrainingError):
    """The requested device is not available; choose another."""


class RunError(TrainingError):
    """The run directory is missing, broken, or in use; name another one."""


class DivergedError(TrainingError):
    """The loss is not finite; lower the learning rate."""


class DistributedError(TrainingError):
    """The processes of a run differ, or one is out of reach; start all of them again."""


class InterruptedRunError(TrainingError):
    """Training was stopped on request and left a checkpoint; resume it when ready."""
