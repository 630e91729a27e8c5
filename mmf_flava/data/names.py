"""Names of records and files: printable keys, hidden names, and the keys and extensions of tar members.

File systems and tar files store names as bytes. In Python, bytes that are not UTF-8 become lone surrogates
(``surrogateescape``), which cannot be printed or written to a text file.
"""

import re

SYSTEM_FOLDER = "__MACOSX"  # added to zip files by macOS
# A backslash is only escaped if it would look like the start of an escaped byte, so different names remain different.
ESCAPED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|\\(?=x[0-9a-f]{2})")


def display_name(name: str) -> str:
    r"""Return a name as printable text: bytes that are not UTF-8, and control characters, become ``\xe9``."""
    return name if name.isprintable() and "\\" not in name else ESCAPED.sub(_escape, name)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    is_byte = "\udc80" <= character <= "\udcff"
    return "".join(
        f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder name is hidden (``.ipynb_checkpoints``, macOS's ``._1.jpg``) or ``__MACOSX``."""
    return name.startswith(".") or name == SYSTEM_FOLDER


def extension_of(name: str) -> str:
    """Return the lower-case text after the last dot of a file name or path; empty if the file name has no dot."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return extension.lower() if dot else ""


def split_member_name(name: str) -> tuple[str, str]:
    """Split the name of a tar member into (key, extension) at the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def is_system_key(key: str) -> bool:
    """Return whether a key belongs to a hidden tar member (``._1.jpg``, ``.DS_Store``) or to one in ``__MACOSX``."""
    return key[-1:] in ("", "/") or (SYSTEM_FOLDER in key and SYSTEM_FOLDER in key.split("/"))
