"""Why a remote file cannot be had."""

from mmf_flava.errors import UserError


class NotThere(UserError):
    """The server has no such file."""


class Unreachable(UserError):
    """The server does not answer, or broke off; it may do better in a while."""
