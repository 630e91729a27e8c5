"""Patches that keep credentials out of MMF's log and of ``config.yaml``."""

import builtins
import json
import logging
import os
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.config.secrets import to_public, to_public_yaml
from mmf_flava.errors import hide_secrets

UNTIL = "MMF neither logs nor stores the values of environment variables"


class HideSecrets(logging.Filter):
    """Applies ``hide_secrets`` to records and their tracebacks."""

    formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = hide_secrets(record.getMessage()), None
        except (TypeError, ValueError):  # the arguments do not fit the message; logging reports it
            return True
        if record.exc_info and not record.exc_text:
            record.exc_text = hide_secrets(self.formatter.formatException(record.exc_info))
        return True


@patch(
    "mmf.utils.checkpoint",
    what="config.yaml keeps interpolations such as ${oc.env:KEY}, and its addresses contain no credentials",
    why="MMF writes the values of environment variables to the run folder",
    since="MMF 1.0.0rc1",
    until=UNTIL,
)
def stored_config(module: Any) -> None:
    @wrap(module.Checkpoint, "save_config", only_if=flava_run.is_current)
    def save_config(original: Any, self: Any) -> None:
        is_main = getattr(module, "is_main", getattr(module, "is_master", None))
        if is_main is None or is_main():
            with module.PathManager.open(os.path.join(self.ckpt_foldername, "config.yaml"), "w") as file:
                file.write(to_public_yaml(self.config))


@patch(
    "mmf.utils.configuration",
    what="the logged config keeps interpolations such as ${oc.env:KEY}, and its addresses contain no credentials",
    why="MMF logs the values of environment variables",
    since="MMF 1.0.0rc1",
    until=UNTIL,
)
def logged_config(module: Any) -> None:
    @wrap(module.Configuration, "_convert_node_to_json", only_if=flava_run.is_current)
    def _convert_node_to_json(original: Any, self: Any, node: Any) -> str:
        return json.dumps(to_public(node), indent=4, sort_keys=True)


@patch(
    "mmf_cli.run",
    what="addresses in the printed options contain no credentials",
    why="MMF prints the options of the command line",
    since="MMF 1.0.0rc1",
    until=UNTIL,
)
def printed_options(module: Any) -> None:
    def print(*values: Any, **options: Any) -> None:
        if flava_run.is_current():
            values = tuple(map(hide_secrets, values))
        builtins.print(*values, **options)

    module.print = print


@patch(
    "mmf.utils.logger",
    what="addresses in the log contain no credentials",
    why="paths in a config may be URLs with credentials, and errors and warnings contain paths",
    since="MMF 1.0.0rc1",
    until=UNTIL,
)
def logged_addresses(module: Any) -> None:
    # MMF's main branch logs through functions
    owner, name = (module.Logger, "__init__") if hasattr(module, "Logger") else (module, "setup_logger")

    @wrap(owner, name, only_if=flava_run.is_current)
    def start(original: Any, *args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        loggers = [logging.root, *(logging.getLogger(known) for known in list(logging.root.manager.loggerDict))]
        for handler in {handler for logger in loggers for handler in logger.handlers}:
            if not any(isinstance(known, HideSecrets) for known in handler.filters):
                handler.addFilter(HideSecrets())
        return result
