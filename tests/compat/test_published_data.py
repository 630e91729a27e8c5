"""Published files of MMF's datasets, put into their folders by hand."""

import json
import logging

import pytest
from mmf.datasets.builders.hateful_memes.builder import HatefulMemesBuilder
from mmf.datasets.builders.visual_entailment.builder import VisualEntailmentBuilder
from mmf.datasets.builders.vqa2.builder import VQA2Builder
from mmf.utils import download
from mmf.utils.configuration import load_yaml
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.compat.published_annotations import ANSWERS, name_image, write_answers
from mmf_flava.compat.published_files import find_annotations, is_missing_in, missing_files
from mmf_flava.errors import UserError

BUILDERS = {"hateful_memes": HatefulMemesBuilder, "vqa2": VQA2Builder, "visual_entailment": VisualEntailmentBuilder}


@pytest.fixture
def data(tmp_path, global_config, own_run, monkeypatch):
    """The folder ``datasets``; downloads fail."""
    global_config.env = {
        "data_dir": str(tmp_path),
        "cache_dir": str(tmp_path),
        "dataset_zoo": "configs/zoo/datasets.yaml",
    }
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(download.DownloadableFile, "download_file", lambda file, path: pytest.fail(f"downloads {file}"))
    return tmp_path / "datasets"


def section(name, data, **changes):
    """MMF's default section of a dataset with raw images, without the processors of texts."""
    config = OmegaConf.create(
        OmegaConf.to_container(load_yaml(f"configs/datasets/{name}/defaults.yaml"), resolve=False)
    )
    config = config.dataset_config[name]
    config.update({"data_dir": str(data), "use_images": True, "use_features": False})
    for key in ("text_processor", "context_processor"):
        config.processors.pop(key, None)
    return OmegaConf.merge(config, changes)


def load(name, config, split):
    builder = BUILDERS[name]()
    builder.build(config, split)
    return builder.load(config, split)


def entries(dataset):
    return [dataset.datasets[0].annotation_db[n] for n in range(len(dataset))]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_memes(data, *names):
    (data / "hateful_memes/defaults/images/img").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(data / "hateful_memes/defaults/images/img/01235.png")
    for name in ("train", *names):
        row = {"id": 1235, "img": "img/01235.png", "label": 0, "text": name}
        write_lines(data / f"hateful_memes/defaults/annotations/{name}.jsonl", [row])


@pytest.mark.parametrize(
    ("names", "val", "test"),
    [
        (("dev", "test"), "dev", "test"),
        (("dev_seen", "test_seen"), "dev_seen", "test_seen"),
        (("dev_seen", "dev_unseen", "test_seen", "test_unseen"), "dev_unseen", "test_unseen"),
        (("dev_seen",), "dev_seen", None),
    ],
)
def test_splits_of_hateful_memes_are_those_of_the_folder(data, caplog, names, val, test):
    write_memes(data, *names)
    recipe = {"val": ["hateful_memes/defaults/annotations/dev_unseen.jsonl"]}
    recipe["test"] = [recipe["val"][0].replace("dev", "test")]
    config = section("hateful_memes", data, annotations=recipe)
    with caplog.at_level(logging.WARNING):
        found = {split: load("hateful_memes", config, split) for split in ("train", "val", "test")}
    texts = {split: dataset and entries(dataset)[0]["text"] for split, dataset in found.items()}
    assert texts == {"train": "train", "val": val, "test": test}
    assert ("the split val is" in caplog.text) == (val != "dev_unseen")


def test_configured_annotations_come_first(data):
    write_memes(data, "dev", "dev_seen", "dev_unseen", "mine")
    for name in ("dev", "dev_seen", "mine"):
        config = section("hateful_memes", data)
        config.annotations.val = [f"hateful_memes/defaults/annotations/{name}.jsonl"]
        assert entries(load("hateful_memes", config, "val"))[0]["text"] == name


def test_missing_memes_are_one_sentence(data):
    with pytest.raises(
        UserError, match=r"does not contain train\.jsonl\. .* put its \*\.jsonl files there and its folder img"
    ):
        load("hateful_memes", section("hateful_memes", data), "train")


def test_only_missing_files_are_downloaded(data):
    write_memes(data, "dev_unseen", "test_unseen")
    config, root = section("hateful_memes", data), data / "hateful_memes/defaults"
    config = find_annotations("hateful_memes", config)
    assert missing_files(config) == []
    vocabulary = "hateful_memes/defaults/extras/vocabs/vocabulary_100k.txt"
    config.processors.text_processor = {"type": "vocab", "params": {"vocab": {"vocab_file": vocabulary}}}
    assert missing_files(config) == [data / vocabulary]
    assert is_missing_in(root, missing_files(config)) and not is_missing_in(root / "images", missing_files(config))
    config.annotations.train = ["hateful_memes/defaults/annotations/other.jsonl"]
    assert is_missing_in(root / "annotations", missing_files(config))
    assert not is_missing_in(root, missing_files(config)[:1]), "extras.tar.gz has no annotations"
    (root / "images" / "part.tar.gz").touch()  # of an interrupted download
    assert is_missing_in(root / "images", missing_files(config))


SNLI_VE = {  # an entry of the generator of SNLI-VE
    "Flickr30K_ID": "4705552913",
    "annotator_labels": ["neutral", "entailment", "neutral", "neutral", "neutral"],
    "captionID": "4705552913.jpg#2",
    "gold_label": "neutral",
    "pairID": "4705552913.jpg#2r1n",
    "sentence1": "Two women are embracing while holding to go packages.",
    "sentence2": "The sisters are hugging goodbye.",
}


def test_snli_ve(data):
    images = data / "flickr30k/defaults/images/flickr30k_images"
    images.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(images / "4705552913.jpg")
    other = {key: value for key, value in SNLI_VE.items() if key != "Flickr30K_ID"}
    rows = [
        SNLI_VE,
        {**other, "Flikr30kID": "4705552913.jpg"},
        {**other, "Flickr30kID": "4705552913"},
        {**other, "Flickr30K_ID": 4705552913},
        other,
    ]
    for split in ("train", "dev", "test"):
        write_lines(data / f"visual_entailment/defaults/annotations/snli_ve_{split}.jsonl", rows)
    dataset = load("visual_entailment", section("visual_entailment", data), "train").datasets[0]
    assert [dataset.annotation_db[n]["Flikr30kID"] for n in range(5)] == ["4705552913.jpg"] * 5
    assert [dataset.image_db[n]["images"][0].size for n in range(5)] == [(8, 8)] * 5
    assert name_image({"gold_label": "neutral"}) == {"gold_label": "neutral"} and name_image(7) == 7


def write_vqa(data, *subsets):
    """Two questions of each subset in VQAv2's published form."""
    folder = data / "vqa2/defaults/annotations"
    folder.mkdir(parents=True)
    for subset in subsets:
        common = {"info": {"version": "2.0"}, "license": {}, "data_subtype": subset}
        questions = [
            {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
            {"image_id": 458752, "question": "What position is this man's friend playing?", "question_id": 458752001},
        ]
        content = {**common, "task_type": "Open-Ended", "data_type": "mscoco", "questions": questions}
        (folder / f"v2_OpenEnded_mscoco_{subset}_questions.json").write_text(json.dumps(content))
        if not subset.startswith("test"):
            annotations = [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": answer,
                    "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
                    "image_id": 458752,
                    "answer_type": "other",
                    "question_id": question["question_id"],
                }
                for question, answer in zip(questions, ("net", "Pitcher"), strict=True)
            ]
            content = {**common, "data_type": "mscoco", "annotations": annotations}
            (folder / f"v2_mscoco_{subset}_annotations.json").write_text(json.dumps(content))
        images = data / "coco/defaults/images" / subset.replace("-dev", "")
        images.mkdir(parents=True, exist_ok=True)
        name = f"COCO_{images.name}_000000458752.jpg"
        Image.new("RGB", (8, 8)).save(images / name)


@pytest.mark.parametrize("test", [None, "test2015", "test-dev2015"])
def test_vqa(data, caplog, test):
    write_vqa(data, *filter(None, ("train2014", "val2014", test)))
    config = section("vqa2", data)
    config.processors.pop("image_processor", None)
    with caplog.at_level(logging.WARNING):
        datasets = {split: load("vqa2", config, split) for split in ("train", "val", "test")}
    for split in ("train", "val") if test is None else ("train", "val", "test"):
        dataset = datasets[split].datasets[0]
        first, second = entries(datasets[split])
        assert (first["question_id"], first["image_id"]) == (458752000, 458752)
        assert second["question_tokens"] == ["what", "position", "is", "this", "man", "'", "s", "friend", "playing"]
        assert ("answers" in first) == (split != "test")
        assert dataset.image_db[0]["images"][0].size == (8, 8)
    assert first.get("answers", ["net"])[0] == "net"
    assert (datasets["test"] is None) == (test is None)
    vocabulary = datasets["train"].datasets[0].config.processors.answer_processor.params.vocab_file
    with open(vocabulary) as file:
        assert file.read().splitlines() == ["<unk>", "net", "pitcher"]
    assert "vocabulary of 3 answers" in caplog.text


def test_answers_that_are_missing_are_named(data):
    write_vqa(data, "train2014", "val2014")
    (data / "vqa2/defaults/annotations/v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(UserError, match=r"v2_mscoco_train2014_annotations\.json was not found\. Put it, with"):
        load("vqa2", section("vqa2", data), "train")


def test_vocabulary_has_the_most_frequent_answers(tmp_path):
    answers = [f"answer {n}" for n in range(4000) for _ in range(1 + (n < 3000))] + ["Net?"] * 5
    content = {"annotations": [{"multiple_choice_answer": answer} for answer in answers]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    write_answers([tmp_path / "a.json"], tmp_path / "answers.txt")
    words = (tmp_path / "answers.txt").read_text().splitlines()
    assert len(words) == ANSWERS == 3129
    assert words[:2] == ["<unk>", "net"] and set(words[2:3002]) == {f"answer {n}" for n in range(3000)}
    assert words[3002:] == sorted(f"answer {n}" for n in range(3000, 4000))[:127]
