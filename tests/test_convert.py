"""Conversion between formats: round trips are bit-equal, and Hugging Face loads the result."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import FlavaForPreTraining, FlavaModel, FlavaProcessor

from mmf_flava import load_pretrained
from mmf_flava.convert import convert, main
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.processor_files import read_processors, write_processors
from mmf_flava.data.processors import FlavaImageProcessor, FlavaTextProcessor
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.tokenizer import build_wordpiece
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import read_weights
from tests.parity.batches import randomise
from tests.parity.test_hugging_face import small_config

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(36))]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder as ``save_pretrained`` writes it, with a tokenizer."""
    torch.manual_seed(0)
    model = FlavaForPreTraining(small_config())
    randomise(model)
    folder = tmp_path_factory.mktemp("source")
    model.save_pretrained(folder)
    build_wordpiece(WORDS).save(str(folder / "tokenizer.json"))
    return folder


def all_keys(folder):
    return FlavaForPreTraining.from_pretrained(folder).state_dict()


def test_hugging_face_loads_its_converted_weights(source, tmp_path):
    lines = convert(source, tmp_path / "hf", "hf")
    before, after = all_keys(source), load_file(tmp_path / "hf" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert lines[0].startswith(f"Wrote {tmp_path / 'hf'}: {len(after)} tensors")
    model, report = FlavaForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.image_config.image_size == 32
    core, report = FlavaModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(core.logit_scale, model.flava.logit_scale)


def test_averages_of_a_checkpoint_are_converted(source, tmp_path):
    run = tmp_path / "run"
    convert(source, run, "mmf_flava")
    shutil.move(run / "flava.safetensors", run / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors has no averages of the weights \(ema\.safetensors\)"):
        convert(run, tmp_path / "ema", "mmf_flava", ema=True)
    tensors = load_file(run / "model.safetensors")
    with safe_open(run / "model.safetensors", "pt") as opened:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, run / "ema.safetensors", opened.metadata())
    assert main([str(run), str(tmp_path / "ema"), "--to", "mmf_flava", "--ema"]) == 0
    averages = load_file(tmp_path / "ema" / "flava.safetensors")
    assert averages.keys() == tensors.keys()
    assert all(torch.equal(averages[name], tensor + 1) for name, tensor in tensors.items())


@pytest.mark.parametrize("style", ["torchmultimodal", "mmf", "mmf_flava"])
def test_round_trip_is_bit_equal(source, tmp_path, style):
    convert(source, tmp_path / "there", style)
    file = next((tmp_path / "there").iterdir())
    assert read_weights(file).style == style
    convert(file, tmp_path / "back", "hf", num_heads=4)
    before, after = all_keys(source), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    if style != "torchmultimodal":  # a state dict does not store eps and num_heads
        saved, restored = (
            json.loads((folder / "config.json").read_text())["text_config"] for folder in (source, tmp_path / "back")
        )
        assert all(saved[key] == value for key, value in restored.items())


def test_half_precision_is_kept(source, tmp_path):
    FlavaForPreTraining.from_pretrained(source).bfloat16().save_pretrained(tmp_path / "half")
    convert(tmp_path / "half", tmp_path / "native.safetensors", "mmf_flava")
    convert(tmp_path / "native.safetensors", tmp_path / "back", "hf")
    assert {tensor.dtype for tensor in load_file(tmp_path / "back" / "model.safetensors").values()} == {torch.bfloat16}


def test_poolers_are_added_to_the_checkpoint_of_a_run(source, tmp_path):
    """Hugging Face's model has poolers, a run has none; two exports give the same file."""
    model = load_pretrained(source, heads=True)
    from mmf_flava.training.checkpoint_folder import CheckpointFolder

    checkpoint = CheckpointFolder(tmp_path).save(1, model, torch.optim.SGD(model.parameters(), lr=1), {})
    lines = convert(checkpoint, tmp_path / "hf", "hf")
    convert(tmp_path, tmp_path / "again", "hf")  # the newest checkpoint of the run folder
    assert "Added 6 pooler tensors" in " ".join(lines)
    _, report = FlavaForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("hf", "again")]
    assert weights[0] == weights[1]
    before, after = all_keys(source), load_file(tmp_path / "hf" / "model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before if "_model.pooler." not in key)


def test_processor_is_written(source, tmp_path):
    convert(source, tmp_path / "hf", "hf")
    processor = FlavaProcessor.from_pretrained(tmp_path / "hf")
    image = torch.zeros(3, 50, 40, dtype=torch.uint8)
    batch = processor(
        images=image, text="word1 word2", return_tensors="pt", return_image_mask=True, return_codebook_pixels=True
    )
    assert batch["pixel_values"].shape == (1, 3, 32, 32)
    assert batch["bool_masked_pos"].shape == (1, 4, 4)
    assert batch["codebook_pixel_values"].shape == (1, 3, 32, 32)
    assert batch["input_ids"].tolist() == [[2, 6, 7, 3]]


def test_tokenizer_option_copies_a_tokenizer(source, tmp_path):
    for name in ("model.safetensors", "config.json"):
        shutil.copy(source / name, tmp_path)
    lines = convert(tmp_path, tmp_path / "without", "hf")
    assert "--tokenizer DIR" in lines[-2] and "CLIP's values were written" in lines[-1]
    convert(tmp_path, tmp_path / "with", "hf", tokenizer=source)
    assert FlavaProcessor.from_pretrained(tmp_path / "with").tokenizer.vocab_size == len(WORDS)


def test_tokenizer_with_another_vocabulary_is_refused(source, tmp_path):
    build_wordpiece([*WORDS[:5], *reversed(WORDS[5:])]).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"--tokenizer .*: the vocabulary differs"):
        convert(source, tmp_path / "hf", "hf", tokenizer=tmp_path)


PROCESSORS = SavedProcessors.collect(
    FlavaTextProcessor(
        {"max_length": 9}, initial=InitialProcessors(SavedProcessors("", build_wordpiece(WORDS).to_str()))
    ),
    FlavaImageProcessor({"image_size": 32, "mask": None, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}),
    ["cat", "dog"],
)


@pytest.mark.parametrize("style", ["hf", "mmf_flava"])
def test_processors_are_exported_with_the_weights(source, tmp_path, style):
    """From a checkpoint with processors.json."""
    shutil.copy(source / "model.safetensors", tmp_path)
    shutil.copy(source / "config.json", tmp_path)
    write_processors(PROCESSORS, tmp_path)
    convert(tmp_path, tmp_path / "out", style)
    exported = read_processors(tmp_path / "out")
    assert exported == replace(PROCESSORS, source=str(tmp_path / "out"))
    if style == "hf":
        processor = FlavaProcessor.from_pretrained(tmp_path / "out")
        assert tuple(processor.image_processor.image_mean) == (0.1, 0.2, 0.3)
        assert processor.tokenizer("word1 word2")["input_ids"] == [2, 6, 7, 3]


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


def test_existing_files_are_replaced_only_with_force(source, tmp_path, capsys):
    target = tmp_path / "flava.pt"
    target.write_text("existing")
    code, message = run(capsys, source, target, "--to", "torchmultimodal")
    assert code == 2 and "--force" in message and target.read_text() == "existing"
    assert run(capsys, source, target, "--to", "torchmultimodal", "--force")[0] == 0
    assert read_weights(target).style == "torchmultimodal"
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "README.md").write_text("existing")
    assert run(capsys, source, folder, "--to", "hf")[0] == 2
    assert run(capsys, source, folder, "--to", "hf", "--force")[0] == 0
    assert (folder / "README.md").read_text() == "existing" and (folder / "config.json").is_file()


def test_failed_export_leaves_no_files(source, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    for module in ("mmf_flava.convert", "mmf_flava.hub_folder.folder"):
        monkeypatch.setattr(f"{module}.save_file", full_disk)
    for target, to in (("hf", "hf"), ("native.safetensors", "mmf_flava")):
        with pytest.raises(OSError, match="no space"):
            convert(source, tmp_path / target, to)
    assert not list(tmp_path.iterdir())


def test_invalid_arguments_give_one_line_errors(source, tmp_path, capsys):
    code, message = run(capsys, tmp_path / "nothing", tmp_path / "hf", "--to", "hf")
    assert code == 2 and "was not found" in message and "Traceback" not in message
    code, message = run(capsys, source, tmp_path / "a.pt", "--to", "torchmultimodal", "--tokenizer", source)
    assert code == 2 and "--tokenizer" in message
    code, message = run(capsys, source, tmp_path / "hf", "--to", "hf", "--tokenizer", tmp_path)
    assert code == 2 and "neither tokenizer.json nor vocab.txt" in message
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "--to torchmultimodal" in capsys.readouterr().out


def test_heads_must_divide_the_hidden_size(source, tmp_path, capsys):
    code, message = run(capsys, source, tmp_path / "a.pt", "--to", "torchmultimodal", "--num-heads", 7)
    assert code == 2 and "--num-heads: 7 does not divide the hidden size" in message


def test_class_names_are_converted(source, tmp_path):
    classes = ("red", "blue")
    folder = shutil.copytree(source, tmp_path / "named")
    write_processors(replace(read_processors(source), classes=classes), folder)
    convert(folder, tmp_path / "hf", "hf")
    config = FlavaForPreTraining.from_pretrained(tmp_path / "hf").config
    assert (config.id2label, config.label2id) == ({0: "red", 1: "blue"}, {"red": 0, "blue": 1})
    assert read_processors(tmp_path / "hf").classes == classes
    assert read_processors(source).classes is None
