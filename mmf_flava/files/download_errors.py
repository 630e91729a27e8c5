"""Exceptions raised by downloads."""

from mmf_flava.errors import UserError


class RemoteFileNotFoundError(UserError):
    """The file does not exist on the server, or access to it is denied."""


class DownloadError(UserError):
    """The server is not reachable or closed the connection; a retry may succeed."""


class RangeRefusedError(UserError):
    """The server does not send a part of a file. The complete file may be available."""
