"""Published annotations of MMF's datasets that MMF itself does not read: SNLI-VE's and VQAv2's.

SNLI-VE: the generator of the authors writes ``Flickr30K_ID`` without ``.jpg``; MMF reads ``Flikr30kID`` with it.
VQAv2: ``v2_OpenEnded_mscoco_train2014_questions.json`` {"questions": [{image_id, question, question_id}]} and
``v2_mscoco_train2014_annotations.json`` {"annotations": [{question_id, answers: [{answer}], multiple_choice_answer}]};
MMF reads ``imdb_*.npy`` files, which it makes of them.

Other packages are imported when they are used, because this module is loaded in every process with MMF.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

FLICKR_KEYS = ("Flickr30kID", "Flikr30kID", "Flickr30K_ID", "Flickr30k_ID", "flickr30k_id", "Flickr30KID")
IMAGE_NAME = re.compile(r".*\.(jpe?g|png)", re.IGNORECASE)
# train2014, val2014, test2015 or test-dev2015 in the name of a file of questions
SUBSET = re.compile(r"(train|val|test)(?:-dev)?(20\d\d)")
QUESTIONS = re.compile(r"(.*)OpenEnded_(.*)_questions\.json")
ANSWERS = 3129  # number of answers, <unk> included, as in MMF's answers_vqa.txt and other models of VQAv2
UNKNOWN = "<unk>"


def name_image(entry: Any) -> Any:
    """Return an entry of SNLI-VE with the name of its image as MMF reads it. Other entries are returned unchanged."""
    if not isinstance(entry, dict) or "gold_label" not in entry:
        return entry
    key = next((key for key in FLICKR_KEYS if key in entry), None)
    if key is None and isinstance(pair := entry.get("pairID"), str):
        return {**entry, "Flikr30kID": f"{pair.partition('#')[0].removesuffix('.jpg')}.jpg"}
    if key is None or not isinstance(entry[key], str | int):
        return entry
    name = str(entry[key])
    if key in FLICKR_KEYS[:2] and IMAGE_NAME.fullmatch(name):
        return entry
    others = {other: value for other, value in entry.items() if other != key}
    return {**others, "Flikr30kID": name if IMAGE_NAME.fullmatch(name) else f"{name}.jpg"}


def is_questions(path: str | Path) -> bool:
    """Return whether a file has the name of VQAv2's questions."""
    return QUESTIONS.fullmatch(Path(path).name) is not None


def find_answers(questions: Path) -> Path | None:
    """Return the file of the answers of VQAv2's questions, None for questions of a test split.

    Raises:
        UserError: the answers are missing.
    """
    match = QUESTIONS.fullmatch(questions.name)
    assert match is not None
    path = questions.with_name(f"{match[1]}{match[2]}_annotations.json")
    if path.is_file():
        return path
    if "test" in match[2]:
        return None
    raise UserError(f"{path} was not found. Put it, with the answers of these questions, beside {questions.name}.")


def read_questions(path: Path) -> list[Any]:
    """Return VQAv2's questions as entries of MMF's imdb. Questions of a test split have no answers.

    Raises:
        UserError: a file is damaged, or the answers are missing.
    """
    from mmf.utils.text import tokenize

    subset = SUBSET.search(path.name)
    questions = _read_list(path, "questions")
    answers: dict[Any, list[Any]] = {}
    if (annotations := find_answers(path)) is not None:
        for annotation in _read_list(annotations, "annotations"):
            if isinstance(annotation, dict) and isinstance(annotation.get("answers"), list):
                answers[annotation.get("question_id")] = [
                    answer.get("answer") if isinstance(answer, dict) else answer for answer in annotation["answers"]
                ]
    entries = []
    for question in questions:
        if not isinstance(question, dict) or not isinstance(question.get("question"), str):
            entries.append(question)
            continue
        number, image = question.get("question_id"), question.get("image_id")
        entry = {"question_id": number, "image_id": image, "question_str": question["question"]}
        entry["question_tokens"] = tokenize(question["question"])
        if subset is not None and isinstance(image, int):
            entry["image_name"] = f"COCO_{subset[1]}{subset[2]}_{image:012}"
        if number in answers:
            entry["answers"] = answers[number]
        entries.append(entry)
    return entries


def write_answers(annotations: Iterable[Path], path: Path, size: int = ANSWERS) -> None:
    """Write a vocabulary of answers, one per line: <unk> and the ``size - 1`` most frequent ones.

    Frequencies are those of ``multiple_choice_answer``, the most frequent of a question's ten answers, as for other
    models of VQAv2. Of equally frequent answers, the first in alphabetical order is used.

    Raises:
        UserError: a file is damaged, or there are no answers.
    """
    from mmf.utils.text import word_tokenize

    from mmf_flava.files import atomic

    counts: Counter[str] = Counter()
    listed = list(annotations)
    for file in listed:
        for annotation in _read_list(file, "annotations"):
            answer = annotation.get("multiple_choice_answer") if isinstance(annotation, dict) else None
            if isinstance(answer, str) and (word := word_tokenize(answer)):
                counts[word] += 1
    if not counts:
        raise UserError(f"{', '.join(map(str, listed))}: no multiple_choice_answer was found. Download VQAv2 again.")
    answers = sorted(counts, key=lambda answer: (-counts[answer], answer))[: size - 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, "\n".join([UNKNOWN, *answers]) + "\n")
    names = ", ".join(file.name for file in listed)
    logger.warning(
        "%s: vocabulary of %s answers, made of %s: %s and the most frequent values of multiple_choice_answer.",
        *(path, f"{len(answers) + 1:,}", names, UNKNOWN),
    )


def _read_list(path: Path, key: str) -> list[Any]:
    from mmf_flava.files.damaged_file import damaged_file
    from mmf_flava.files.json_data import read_object

    with damaged_file(path, "file of VQAv2", "Download it again from visualqa.org."):
        values = read_object(path).get(key)
        if not isinstance(values, list):
            raise ValueError(f"it has no list of {key}")
        return values
