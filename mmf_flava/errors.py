"""The exception for user errors, helpers for its messages, and kinds of other exceptions."""

import errno
import re
from typing import Any

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

MASK = "***"
SCHEME = r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)"
ADDRESS = re.compile(rf"{SCHEME}((?:[^\s/?#]*@)?[^\s\"'<>]+)")
AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:\d*)?")  # host and port
INTERPOLATION = r"\$\{[^{}]*\}"
INTERPOLATED = re.compile(rf"(([\w.-]*:|&?[\w.-]*=)?{INTERPOLATION})+")  # no literal password or parameter


class UserError(ValueError):
    """An error that the user can fix; the message contains the config key or file, the problem and the fix.

    ``mmf_run`` and the commands of mmf_flava print the message without a traceback and exit with code 2. Addresses in
    the message contain no credentials, see ``hide_secrets``.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*(hide_secrets(arg) if isinstance(arg, str) else arg for arg in args))


def is_full_disk(error: BaseException) -> bool:
    """Return whether a write failed because the disk is full or its quota is exceeded."""
    return isinstance(error, OSError) and error.errno in FULL_DISK


def is_out_of_resources(error: BaseException) -> bool:
    """Return whether the disk is full or too many files are open, which is not an error of the file that was read."""
    return isinstance(error, OSError) and error.errno in FULL_DISK | TOO_MANY_FILES


def ends_process(error: BaseException) -> bool:
    """Return whether an exception ends the process, as KeyboardInterrupt does."""
    # a panic of a library in Rust, such as tokenizers or safetensors, is not an Exception, but an error of its input
    return not isinstance(error, Exception) and type(error).__name__ != "PanicException"


def join_first(names: list[str], count: int = 3) -> str:
    """Join the first ``count`` names with commas; an ellipsis replaces the rest."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def hide_secrets(text: object) -> str:
    """Return a text whose addresses have neither a user name and password nor a query and fragment.

    A query may be a token or a signature. ``https://user:word@host/x?token=y`` becomes ``https://***@host/x?***``.
    """
    return ADDRESS.sub(lambda match: match[1] + _hide(match[2]), str(text))


def hide_address(address: object) -> str:
    """Return a single address without credentials, also if they contain spaces or quotes; see ``hide_secrets``."""
    text = str(address)
    scheme = re.match(SCHEME, text)
    return hide_secrets(text if scheme is None else scheme[0] + _hide(text[scheme.end() :]))


def _hide(rest: str) -> str:
    """Hide the secrets of an address without its scheme."""
    path, mark, query = _split(rest, "?#")
    authority, slash, path = _split(path, "/\\")
    user, at, host = authority.rpartition("@")
    if not AUTHORITY.fullmatch(re.sub(INTERPOLATION, "0", host)):  # a password with a slash would look like a port
        return MASK
    return _mask(user) + at + host + slash + path + mark + _mask(query)


def _mask(secret: str) -> str:
    return secret if not secret or INTERPOLATED.fullmatch(secret) else MASK


def _split(text: str, marks: str) -> tuple[str, str, str]:
    """Split a text at the first of several characters."""
    found = re.search(f"[{re.escape(marks)}]", text)
    return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])
