"""``checkpoint.resume_zoo``: names of FLAVA's zoo, of MMF's zoo and of the Hugging Face Hub."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.zoo import check_zoo_name
from mmf_flava.errors import UserError
from mmf_flava.training.zoo import replace_zoo_name


def config_of(model, name, **checkpoint):
    section = {"resume_zoo": name, "resume_file": None, "resume_pretrained": False, "pretrained_state_mapping": {}}
    return OmegaConf.create(
        {
            "model": model,
            "model_config": {model: {"pretrained": None} if model == "flava_classification" else {}},
            "checkpoint": section | checkpoint,
        }
    )


@pytest.mark.parametrize(
    ("name", "source"), [("flava.full", "facebook/flava-full"), ("me/my-flava@v1", "me/my-flava@v1")]
)
def test_name_and_hub_name_for_every_kind_of_model(name, source):
    for model in ("flava", "mmbt"):
        config = config_of(model, name, pretrained_state_mapping={"a": "b"})
        replace_zoo_name(config)
        assert config.checkpoint == {
            "resume_zoo": None, "resume_file": source, "resume_pretrained": True, "pretrained_state_mapping": {},
        }  # fmt: skip
    config = config_of("flava_classification", name)
    replace_zoo_name(config)
    assert config.model_config.flava_classification.pretrained == source and config.checkpoint.resume_file is None


def test_a_file_precedes_and_a_mapping_needs_resume_pretrained():
    config = config_of("mmbt", "flava.full", resume_file="mine")
    replace_zoo_name(config)
    assert config.checkpoint.resume_file == "mine" and not config.checkpoint.resume_pretrained
    config = config_of("mmbt", "me/bert", resume_pretrained=True, pretrained_state_mapping={"a": "b"})
    replace_zoo_name(config)
    assert config.checkpoint.pretrained_state_mapping == {"a": "b"}


@pytest.mark.parametrize("name", ["flava.ful", "flava_full"])
def test_near_misses_of_a_model_of_flava(name):
    with pytest.raises(
        UserError, match=r"^checkpoint.resume_zoo: unknown name .* Did you mean 'flava.full'\? A Hugging"
    ):
        check_zoo_name(config_of("flava", name))
    check_zoo_name(config_of("flava", "flava.full"))


@pytest.fixture
def zoo(tmp_path):
    """A zoo of MMF, served by this process, as the zoo of the run."""
    (tmp_path / "served").mkdir()
    file = tmp_path / "served" / "model.pth"
    file.write_bytes(b"weights")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=file.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    resource = {
        "url": f"http://127.0.0.1:{server.server_port}/model.pth", "file_name": "model.pth",
        "hashcode": hashlib.sha256(b"weights").hexdigest(), "compressed": False,
    }  # fmt: skip
    entry = {"version": "1.0", "resources": [resource]}
    broken = {"version": "1.0", "resources": [resource | {"url": resource["url"] + "x"}]}
    models = {"toy": {"pretrained": {"coco": {"full": entry, "defaults": "${toy.pretrained.coco.full}"}, "no": broken}}}
    (tmp_path / "models.yaml").write_text(OmegaConf.to_yaml(models))
    before = registry.get("config", no_warning=True)
    env = {"model_zoo": str(tmp_path / "models.yaml"), "data_dir": str(tmp_path), "cache_dir": str(tmp_path)}
    registry.register("config", OmegaConf.create({"env": env}))
    yield tmp_path
    registry.register("config", before)
    server.shutdown()


def test_names_of_mmfs_zoo(zoo):
    for name in ("toy.pretrained.coco.full", "toy.pretrained.coco"):
        config = config_of("mmbt", name)
        replace_zoo_name(config)
        assert [
            file.read_bytes()
            for file in (zoo / "models").glob(f"{name}{'' if name.endswith('full') else '.defaults'}/model.pth")
        ] == [b"weights"]
        assert config.checkpoint.resume_file.startswith(str(zoo / "models" / name))
    with pytest.raises(
        UserError, match=r"resume_zoo: unknown name 'toy.pretrained.cocoa'; did you mean toy.pretrained.c"
    ):
        replace_zoo_name(config_of("mmbt", "toy.pretrained.cocoa"))
    with pytest.raises(UserError, match=r"model\.pth"):
        replace_zoo_name(config_of("mmbt", "toy.pretrained.no"))
