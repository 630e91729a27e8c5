"""Patches of readers of annotations, features, images and weights: nothing in a file is executed.

MMF and torchvision unpickle these files, which executes code that a file contains. In FLAVA's runs, the modules that do
so get replacements of ``numpy.load``, ``pickle.load`` and ``torch.load``. Files with plain data and arrays give the
same data.
"""

import ast
import builtins
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import overlay, patch, wrap
from mmf_flava.errors import UserError

FEATURES = "mmf.datasets.databases.readers.feature_readers"
# names of the patches, and the modules that unpickle files; mmf.utils.checkpoint: see imports.checkpoint
MODULES = {
    "annotations": "mmf.datasets.databases.annotation_database",
    "features": FEATURES,
    "charades": "mmf.datasets.builders.charades.dataset",
    "graph_vocabulary": "mmf.datasets.processors.processors",
    "embeddings": "mmf.modules.embeddings",
    "encoders": "mmf.modules.encoders",
    "albef": "mmf.models.albef.vit",
    "krisp": "mmf.models.krisp",
    "unit": "mmf.models.unit.unit",
    "drawn_features": "mmf.utils.visualize",
    "cifar": "torchvision.datasets.cifar",
}
CALLS = ("np.load(", "pickle.load(", "pickle.loads(", "torch.load(", "torch.hub.load")
SAFE: dict[str, Any] = {
    "why": "unpickling executes code that the file contains",
    "since": "MMF 1.0.0rc1",
    "until": "these files are read without unpickling",
}


def _register(name: str, module: str) -> None:
    def change(module: Any) -> None:
        for library, replace in (("np", _numpy), ("pickle", _pickle), ("torch", _torch)):
            if hasattr(module, library):
                setattr(module, library, replace(getattr(module, library), module.__name__))

    change.__name__ = name
    what = "files are read without executing what they contain; numpy.load, pickle.load and torch.load are replaced"
    patch(module, what=what, needed=lambda module: any(call in inspect.getsource(module) for call in CALLS), **SAFE)(
        change
    )


for _name, _module in MODULES.items():
    _register(_name, _module)


@patch(FEATURES, what="the error for an invalid record of an LMDB file names the file", **SAFE)
def lmdb_records(module: Any) -> None:
    @wrap(module.LMDBFeatureReader, "_load", only_if=flava_run.is_current)
    def _load(original: Any, self: Any, image_file_path: str) -> Any:
        from mmf_flava.files.pickle_stack import PickleError

        try:
            return original(self, image_file_path)
        except PickleError as error:
            raise PickleError(_explain(f"{self.db_path}, record of {image_file_path}", error)) from None


@patch(
    "mmf.utils.features.visualizing_image",
    what="class names are literals",
    needed=lambda module: " eval(" in inspect.getsource(module),
    **{**SAFE, "why": "a file or address with class names is evaluated as a Python expression"},
)
def class_names(module: Any) -> None:
    def evaluate(text: str) -> Any:
        return ast.literal_eval(text) if flava_run.is_current() else builtins.eval(text, vars(module))

    module.eval = evaluate


def _numpy(numpy: Any, module: str) -> Any:
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        from mmf_flava.files.npy import read_npy

        if not flava_run.is_current():
            return numpy.load(file, *args, **kwargs)
        if hasattr(file, "read"):
            return _read(read_npy, file, module)
        with open(file, "rb") as opened:
            return _read(read_npy, opened, module)

    return overlay(numpy, load=load)


def _pickle(pickle: Any, module: str) -> Any:
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        from mmf_flava.files.plain_pickle import read_pickle

        if not flava_run.is_current():
            return pickle.load(file, *args, **kwargs)
        return _read(lambda file: read_pickle(file.read()), file, module)

    def loads(data: Any, *args: Any, **kwargs: Any) -> Any:
        from mmf_flava.files.plain_pickle import read_pickle

        return read_pickle(bytes(data)) if flava_run.is_current() else pickle.loads(data, *args, **kwargs)

    return overlay(pickle, load=load, loads=loads)


def _torch(torch: Any, module: str) -> Any:
    # weights_only is torch's default, unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set
    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        if not flava_run.is_current():
            return torch.load(file, *args, **kwargs)
        return _read(partial(torch.load, **{**kwargs, "weights_only": True}), file, module)

    def load_state_dict_from_url(url: str, *args: Any, **kwargs: Any) -> Any:
        if flava_run.is_current():
            kwargs["weights_only"] = True
        return torch.hub.load_state_dict_from_url(url, *args, **kwargs)

    def load_code(repository: str, *args: Any, **kwargs: Any) -> Any:
        if flava_run.is_current():
            raise UserError(
                f"{module} downloads and executes code of {repository}, which runs with models, trainers or datasets "
                "of mmf_flava do not permit. Select another encoder."
            )
        return torch.hub.load(repository, *args, **kwargs)

    hub = overlay(torch.hub, load=load_code, load_state_dict_from_url=load_state_dict_from_url)
    return overlay(torch, load=load, hub=hub)


def _read(read: Callable[[Any], Any], file: Any, module: str) -> Any:
    """Return ``read(file)``. An invalid file is a ValueError for features of one sample, else a UserError."""
    try:
        return read(file)
    except (MemoryError, OSError, UserError):
        raise
    except Exception as error:  # a damaged file can raise almost any exception
        kind = ValueError if module == FEATURES else UserError
        raise kind(_explain(getattr(file, "name", file), error)) from None


def _explain(name: Any, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0][:300].rstrip(".") or type(error).__name__
    return f"{name} cannot be read, and nothing in it was executed: {reason}. Use a file of plain data and arrays."
