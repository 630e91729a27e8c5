"""What works without MMF, fairseq and fairscale, and the sentence where one of them is needed. One process for all."""

import importlib
import json
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import mmf_flava
from mmf_flava import Embedder, UserError
from mmf_flava.convert import convert
from tests.config.test_recipe_check import check, recipes  # noqa: F401
from tests.evaluation.test_embedder import TEXTS, photos, weights  # noqa: F401
from tests.test_command import COMMAND_LINES

COMMANDS = [name.removesuffix(".py").replace("/", ".") for name in COMMAND_LINES if name.startswith("mmf_flava/")]
SCRIPT = """
import contextlib, importlib, io, json, sys
sys.modules.update(dict.fromkeys(("mmf", "mmf_cli", "fairseq", "fairscale")))  # as if they were not installed
import numpy as np
weights, exported, photos, out, *commands = sys.argv[1:]
result = {"names": {}, "commands": [], "stderr": {}}
import mmf_flava
result["names"] = [name for name in mmf_flava.__all__ if getattr(mmf_flava, name) is not None]
for name in commands:
    importlib.import_module(name)
    result["commands"].append(name)
TEXTS = json.loads(sys.stdin.read())
images = [f"{photos}/{number}.png" for number in range(3)]
arrays = {}
for name, source in (("weights", weights), ("exported", exported)):
    flava = mmf_flava.Embedder(source, device="cpu")
    arrays |= {f"{name}_images": flava.images(images), f"{name}_texts": flava.texts(TEXTS)}
    arrays[f"{name}_pairs"] = flava.pairs(images, TEXTS)
np.savez(out, **arrays)
def run(name, *arguments):
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        code = importlib.import_module(name).main(list(arguments))
    return [code, errors.getvalue()]
run("mmf_flava.convert", exported, out + ".safetensors", "--to", "mmf_flava")
run("mmf_flava.embed", photos, "--weights", exported, "--out", out + ".parquet", "--workers", "0")
for name in ("mmf_flava.cache_codes", "mmf_flava.data.show"):
    main = name if name.endswith("codes") else name + ".__main__"
    result["stderr"][name] = run(main, "recipe.yaml", *(["--dataset", "pmd"] if name.endswith("codes") else []))
try:
    mmf_flava.load_pretrained(weights, heads=True)
except mmf_flava.UserError as error:
    result["stderr"]["heads"] = str(error)
result["loaded"] = [name for name in sys.modules if sys.modules[name] and name.startswith(("mmf.", "fairs"))]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):  # noqa: F811
    """The weights in mmf_flava's own format, as a run exports them."""
    file = tmp_path_factory.mktemp("exported") / "flava.safetensors"
    convert(weights, file, "mmf_flava")
    return file


@pytest.fixture(scope="module")
def result(weights, exported, photos, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("without_mmf") / "embeddings.npz"
    command = [sys.executable, "-c", SCRIPT, *map(str, (weights, exported, photos, out)), *COMMANDS]
    done = subprocess.run(command, input=json.dumps(TEXTS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "out": out}


def test_public_names_and_commands_are_imported(result):
    assert result["names"] == mmf_flava.__all__
    assert result["commands"] == COMMANDS and "mmf_flava.embed" in COMMANDS
    assert result["loaded"] == []


def test_embeddings_equal_those_with_mmf_to_the_bit(result, weights, exported, photos):  # noqa: F811
    importlib.import_module("mmf_flava.plugin")  # registers everything with MMF
    images = [photos / f"{number}.png" for number in range(3)]
    with np.load(result["out"]) as arrays:
        for name, source in (("weights", weights), ("exported", exported)):
            flava = Embedder(source, device="cpu")
            expected = {
                "images": flava.images(images),
                "texts": flava.texts(TEXTS),
                "pairs": flava.pairs(images, TEXTS),
            }
            for kind, values in expected.items():
                assert np.array_equal(arrays[f"{name}_{kind}"], values), (name, kind)
    assert result["out"].with_name("embeddings.npz.safetensors").is_file()
    assert result["out"].with_name("embeddings.npz.parquet").is_file()


def test_what_needs_mmf_names_the_command(result):
    for name in ("mmf_flava.cache_codes", "mmf_flava.data.show"):
        sentence = "This command needs MMF, which is not installed. Run `python -m mmf_flava.install_mmf`."
        assert result["stderr"][name] == [2, f"mmf_flava: {sentence}\n"]
    assert result["stderr"]["heads"].startswith(
        "load_pretrained with heads=True needs MMF, which is not installed. Run "
    )


@pytest.mark.parametrize(
    ("absent", "changes", "message"),
    [
        (
            ["fairscale"],
            {"training__sharding": "fsdp"},
            r"training.sharding: fsdp needs fairscale, which is not installed. Run ",
        ),
        (
            ["fairseq", "fairscale"],
            {"training__sharding": "fsdp"},
            "needs fairseq and fairscale, which are not installed",
        ),
        (
            ["fairseq"],
            {"training__precision": "fp16"},
            "training.precision: fp16 needs fairseq, which is not installed",
        ),
        (["fairseq", "fairscale"], {"training__sharding": "ddp", "training__precision": "bf16"}, None),
        (["fairseq", "fairscale"], {"run_type": "test", "training__precision": "fp16"}, None),
    ],
)
def test_only_fsdp_and_fp16_need_fairseq_and_fairscale(recipes, absent, changes, message, monkeypatch):  # noqa: F811
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    with nullcontext() if message is None else pytest.raises(UserError, match=message):
        check(recipes["demo"], **changes)
