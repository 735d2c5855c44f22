"""The errors a person meets.

Each takes one string, so that it survives pickling between processes (Ray re-raises in the driver),
and carries the exit code the command line ends with. The text names the setting or file, the value,
what is allowed and what to do next; anything else (a bug) is left as a traceback.
"""


class BaltoroError(Exception):
    """Base of all expected errors; ``exit_code`` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(BaltoroError):
    """A recipe, an override or a command-line argument is wrong."""

    exit_code = 2


class InputError(BaltoroError):
    """Input data is missing, unreadable or of a kind that cannot be used."""

    exit_code = 2


class StorageError(BaltoroError):
    """A store refused, failed beyond its retries, is full, or does not keep what publishing relies on."""

    exit_code = 2


class ArtifactError(BaltoroError):
    """An artifact is absent, damaged, of another kind, or was changed after it was published."""

    exit_code = 2


class PlatformError(BaltoroError):
    """This machine or installation lacks something the recipe asks for."""

    exit_code = 2


class TrainingError(BaltoroError):
    """Training ran and could not go on (for example a loss that is not finite)."""

    exit_code = 1
