"""Every exception that Pylon raises on purpose, with the exit status each one means.

A leaf: imports nothing of the project. A `PylonError` becomes one line, `pylon: <message>`, on
stderr; anything else is our bug. A message says what failed, with which object, and what to do.
"""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_DAMAGED = 70
EXIT_CONFIG = 78


class PylonError(Exception):
    """A failure that the user or the owner can understand and act on."""

    exit_status = EXIT_FAILED
    code = "error"


class UsageError(PylonError):
    """The command line asked for something that makes no sense."""

    exit_status = EXIT_USAGE
    code = "usage"


class NotRunning(PylonError):
    """No daemon answers for this home."""

    exit_status = EXIT_NOT_RUNNING
    code = "not-running"


class ConfigError(PylonError):
    """The configuration, or a file of the home, is not as it must be."""

    exit_status = EXIT_CONFIG
    code = "config"


class IdentityError(ConfigError):
    """The identity is missing, unreadable, locked or malformed."""

    code = "identity"


class HomeError(ConfigError):
    """The home has loose modes, another owner, or cannot be written."""

    code = "home"


class AlreadyRunning(PylonError):
    """Another process holds the lock of this home."""

    code = "already-running"


class StoreDamaged(PylonError):
    """The database is damaged or newer than this program; it is never recreated silently."""

    exit_status = EXIT_DAMAGED
    code = "store-damaged"


class StoreFull(PylonError):
    """The disk refused a write (full, read-only, I/O error): nothing new may be accepted."""

    code = "store-full"


class IllegalTransition(PylonError):
    """Somebody asked for an edge that a state machine does not have: a bug, caught by the store."""

    code = "illegal-transition"


class InvalidMessage(PylonError, ValueError):
    """Bytes from a peer that are not what the protocol says; the text is for the log."""

    code = "invalid"


class Refused(PylonError):
    """A job, order, action or payment that policy refuses; `code` is stable and documented."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class RelayError(PylonError):
    """A relay could not be reached or refused us."""

    code = "relay"


class RelayMisbehaved(RelayError):
    """A relay broke the protocol or a limit; it is left alone for longer than one that is down.

    `close_code` is the WebSocket status that it is told.
    """

    code = "relay-misbehaved"

    def __init__(self, message, close_code=1002):
        super().__init__(message)
        self.close_code = close_code


class BackendError(PylonError):
    """A backend failed to complete a prompt; another backend or a later try may do better."""

    code = "backend"


class BackendUnavailable(BackendError):
    """The backend does not answer at all, or is busy."""

    code = "backend-unavailable"


class BackendRefused(BackendError):
    """The backend understood and said no (unknown model, bad parameter): retrying is useless."""

    code = "backend-refused"


class BackendCancelled(BackendError):
    """The caller no longer wants the answer; the connection to the backend is closed."""

    code = "cancelled"


class WalletError(PylonError):
    """The wallet answered, and the answer is no."""

    code = "wallet"


class WalletUnreachable(WalletError):
    """The wallet did not answer; what it did is not known."""

    code = "wallet-unreachable"


class WalletDenied(WalletError):
    """The wallet rejects our credentials (401, 403, UNAUTHORIZED, RESTRICTED)."""

    code = "wallet-denied"


class WalletMismatch(WalletError):
    """The wallet's answer contradicts what was asked (amount, hash, network)."""

    code = "wallet-mismatch"


class ControlError(PylonError):
    """The daemon answered a control command with an error."""

    code = "control"
