"""The one error tree. It knows no transport: `gateway/status.py` maps it to HTTP and gRPC.

PenstockError
├── InvalidRequest            the client sent something wrong; the text says what and where
│   ├── PayloadTooLarge       a body or message over the limit
│   ├── BodyTooSlow           a body that hardly comes
│   └── AlreadyExists
│       └── Conflict          something is under way that this would be in the way of
├── Unauthenticated           the request says not, or wrongly, whose it is
├── Forbidden                 its sender may not do this; says nothing of whether the thing exists
├── NotFound                  no such model, version, route
├── Unsupported               known to the protocol, not done by this server
├── Unavailable               try again later
│   ├── QueueFull             the model's queue is at its bound
│   ├── QuotaExceeded         the tenant's quota is used up
│   └── DeadlineExceeded      the request could not be answered in time
├── ModelFailed               the model's own code raised, or gave something it may not give
│   ├── UnknownError          the same, and the model told the client that it can't say of what kind
│   └── WorkerCrashed         the request ends the process that runs it: trying again would not help
├── Cancelled                 nobody waits for the answer any more
├── LoadFailed                a model can't be loaded; the text says why
│   └── Untrusted             its files are not those that somebody trusted has signed
│       ├── SignatureMissing        nobody has signed them
│       ├── SignatureInvalid        the signature is none, or does not fit
│       ├── WrongKey                somebody else has signed
│       ├── CertificateExpired      the signer's certificate is not valid now
│       ├── ContentChanged          a file is not what was signed
│       ├── FileMissing             one that was signed is not there
│       ├── FileAdded               one is there that was not signed
│       ├── LinkOutside             one is a link, which may lead anywhere
│       ├── WrongModel              the signature is another model's or version's
│       ├── Downgraded              a newer release was served before
│       ├── ReleasesUnreadable      what was served before is not known
│       ├── OverrideRefused         a request gives a configuration that nobody has signed
│       ├── NotEncrypted            a file lies there in plain
│       ├── EncryptionBroken        an encrypted file was changed
│       ├── WrongKeyEncryptionKey   no key of this server opens one
│       ├── FileDamaged             one was cut or changed on the way, and what it holds can't be seen
│       └── PickleRefused           one is a pickle, which runs any code
├── ConfigError               a file or setting is wrong; names file, line, what was expected
│   ├── VaultRefused          Vault does not know the token, or does not allow it this
│   └── VaultMissing          there is nothing at this path of Vault
└── InternalError             a bug of ours; its text is never shown to clients
"""


class PenstockError(Exception):
    """Base of every error that Penstock raises on purpose. `str(error)` is one line for a person."""

    foreign: bool = False
    """Its text may quote what models, libraries and the operating system say, or where files lie: clients are told it
    without that (`gateway/client_text.py`). Our own words, and the client's, they read as they are."""

    def __str__(self) -> str:
        # it may quote what a client or a file has given, and all that carries it is UTF-8
        text = super().__str__()
        return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class InvalidRequest(PenstockError):
    """The request is malformed or contradicts the model's signature."""


class PayloadTooLarge(InvalidRequest):
    """The request's body, or what it decompresses to, is over the configured limit."""


class BodyTooSlow(InvalidRequest):
    """The request's body took longer to come than any network needs."""


class AlreadyExists(InvalidRequest):
    """What was to be created is there already."""


class Conflict(AlreadyExists):
    """Something of its kind is under way, and has to end first."""


class Unauthenticated(PenstockError):
    """The request has no credential, or one that does not hold."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text
        """What exactly was wrong: for the audit log. Who makes credentials up is not told."""


class Forbidden(PenstockError):
    """Who sent the request may not do this. Says nothing of whether what is asked for exists."""


class NotFound(PenstockError):
    """The named model, version or resource is not known."""


class Unsupported(PenstockError):
    """The protocol knows this, this server does not do it."""


class Unavailable(PenstockError):
    """The server can't take this request now; trying again later may work."""

    foreign = True

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
        """When trying again should work, as far as the server can tell; None: it can't."""


class QueueFull(Unavailable):
    """The model's queue holds as many requests, bytes, or time as it may."""


class QuotaExceeded(Unavailable):
    """The tenant has used what it may use."""

    def __init__(
        self,
        text: str,
        retry_after_s: float | None = None,
        limits: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(text, retry_after_s)
        self.limits = limits
        """Headers that say how much of what there is."""


class DeadlineExceeded(Unavailable):
    """The request's time was over before it was answered."""


class ModelFailed(PenstockError):
    """The model's own code raised an error, or returned something its configuration does not allow."""

    foreign = True


class UnknownError(ModelFailed):
    """The model answered the request with an error of no known kind."""


class WorkerCrashed(ModelFailed):
    """The request ends the worker process that runs it, or one like it has done so."""


class Cancelled(PenstockError):
    """The request was cancelled."""


class LoadFailed(PenstockError):
    """The model could not be loaded."""

    foreign = True


class Untrusted(LoadFailed):
    """The model's files are not what somebody who is trusted has signed. The text begins with the error's name."""

    def __str__(self) -> str:
        return f"{type(self).__name__}: {super().__str__()}"


class SignatureMissing(Untrusted):
    """There is no signature, or none that covers what it has to."""


class SignatureInvalid(Untrusted):
    """The signature is no signature, or does not fit what it says."""


class WrongKey(Untrusted):
    """Somebody has signed who is not trusted."""


class CertificateExpired(Untrusted):
    """The signer's certificate, or one above it, is not valid yet, or not any more."""


class ContentChanged(Untrusted):
    """A file is not what was signed."""


class FileMissing(Untrusted):
    """A file that was signed is not there."""


class FileAdded(Untrusted):
    """A file is there that nobody has signed."""


class LinkOutside(Untrusted):
    """A symbolic link, or something else that is neither file nor folder, lies among the model's files."""


class WrongModel(Untrusted):
    """The signature is that of another model, or of another version."""


class Downgraded(Untrusted):
    """What is there is older than what was served before, or than the policy asks for."""


class ReleasesUnreadable(Untrusted):
    """What was served before is not known: its record can't be read or written."""


class OverrideRefused(Untrusted):
    """A load request gives a configuration that nobody has signed."""


class NotEncrypted(Untrusted):
    """A file lies there in plain that has to be encrypted."""


class EncryptionBroken(Untrusted):
    """An encrypted file was changed, cut, or put together otherwise."""


class WrongKeyEncryptionKey(Untrusted):
    """None of this server's keys opens the key of an encrypted file."""


class FileDamaged(Untrusted):
    """A file was cut or changed on the way, so that nobody can see what it holds: nothing to do with trust for whoever
    has broken a download, so its text is a plain one."""

    def __str__(self) -> str:
        return PenstockError.__str__(self)


class PickleRefused(Untrusted):
    """A file holds a pickle, which runs any code when it is read, and the model is not allowed to have one."""


class ConfigError(PenstockError):
    """A configuration file or a setting is wrong."""

    foreign = True


class VaultRefused(ConfigError):
    """Vault does not know the token, or does not allow it this."""


class VaultMissing(ConfigError):
    """There is nothing at this path of Vault."""


class InternalError(PenstockError):
    """A bug in Penstock. The text goes to the log, clients see a neutral one."""
