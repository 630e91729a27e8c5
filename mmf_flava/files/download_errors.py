"""Errors of a download."""

from mmf_flava.errors import UserError


class RemoteFileNotFoundError(UserError):
    """The file does not exist on the server, or access to it is denied."""


class DownloadError(UserError):
    """The server is not reachable or closed the connection. A later retry may succeed."""
