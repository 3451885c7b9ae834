"""Errors that users meet. Each names the value, what is allowed, and the remedy."""


class UserError(ValueError):
    """A mistake of the user's: the command line prints its message alone and exits with 2."""


class ConfigError(UserError):
    """A config that cannot be run: names file, key, value and remedy."""


class CheckpointError(UserError):
    """A checkpoint that is missing, truncated, or does not match its contract."""


class SaveError(RuntimeError):
    """A checkpoint could not be written, such as on a full disk; the ones before it are whole."""


class ProcessDied(RuntimeError):
    """A process of the run is gone: which one, and of what. Its last checkpoint is still there."""


class EnvServerError(RuntimeError):
    """An env server failed: carries the remote traceback as text."""


class EnvServerDied(EnvServerError):
    """The env server's process or connection is gone, or it missed its deadline."""


class EnvKeyRefused(EnvServerDied, UserError):
    """The env server demands a key, or has another one: it lets nobody in without it."""


class EnvContractError(EnvServerError, UserError):
    """An environment answered what its suite may not answer, such as NaN.

    The server lives and may be restarted as after any error. Once that was tried often enough, it
    is the environment that its user has to look at: the message alone says all there is to say.
    """


class PolicyServerError(RuntimeError):
    """Another's policy server failed: it is gone, silent, or answered what is no action."""
