"""UCF101's videos as pictures: the middle frame of each, as CLIP took it."""

import re
from collections import deque
from itertools import islice
from pathlib import Path

from mmf_flava.data.image_sets.labelled import LabelledFiles, bmp
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError


class MiddleFrames(LabelledFiles):
    """Video files with labels; the image of a record is its middle frame."""

    def _content(self, path: Path) -> bytes:
        import av  # not at the top: UCF101 alone needs it

        try:
            with av.open(str(path)) as video:
                stream = video.streams.video[0]
                last = deque(islice(video.decode(stream), stream.frames // 2 + 1), maxlen=1)
                image = last[0].to_image()
        except FileNotFoundError:
            raise
        except (av.FFmpegError, IndexError) as error:  # IndexError: no video or no frame in it
            key = str(path.relative_to(self.root))
            raise BadRecord(
                Reason.DAMAGED_IMAGE, f"{path} is no video ({type(error).__name__}: {error})", key
            ) from error
        return bmp(image)


def open_ucf101(root: Path, split: str) -> MiddleFrames:
    """The videos of a list such as ``test01``; OSError where it is not there."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("UCF101 are videos, and PyAV reads them: `pip install av`.") from None
    text = (root / "ucfTrainTestlist" / f"{split[:-2]}list{split[-2:]}.txt").read_text()
    keys = [line.split(" ")[0] for line in text.splitlines() if line.strip()]
    folders = sorted({key.split("/")[0] for key in keys})
    if not (root / "UCF-101").is_dir():
        raise FileNotFoundError(f"there is no {root / 'UCF-101'}")
    numbers = {name: number for number, name in enumerate(folders)}
    labels = [numbers[key.split("/")[0]] for key in keys]
    classes = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in folders]
    return MiddleFrames(root / "UCF-101", keys, labels, classes)
