"""What is hidden from the model: blocks of image patches, and text tokens. Pure functions on numpy generators.

Shapes: N masks · H, W patch grid · T tokens.
"""

import math

import numpy as np

IGNORED = -1  # label of a token that is not to be predicted
REPLACEMENTS = ("bert", "mask")


def block_mask(
    rng: np.random.Generator,
    grid: tuple[int, int] = (14, 14),
    target: int = 75,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    attempts: int = 10,
    exact: bool = False,
) -> np.ndarray:
    """Block-wise mask of patches (BEiT; FLAVA section 3.2), with the distribution of the released processors.

    Rectangles are laid down until ``target`` patches are covered or ``attempts`` rectangles in a row bring nothing
    new. A rectangle is smaller than the grid in both directions, which favours the centre. At the defaults 74.47
    patches of 196 are masked on average, exactly 75 in two masks of three.

    Args:
        rng: source of randomness.
        grid: (H, W) patches.
        target: patches to mask; more than this are never masked.
        min_block, max_block: area of a rectangle before overlaps; ``max_block`` None means ``target``.
        aspect: smallest and largest height / width, drawn log-uniformly.
        attempts: tries for each rectangle.
        exact: True adds single patches at random where the rectangles stopped short of ``target``.

    Returns:
        (H*W,) bool, row by row, True = masked. With ``exact`` False a tiny grid may, rarely, get an empty mask.
    """
    height, width = grid
    if not 0 < target <= height * width:
        raise ValueError(f"cannot mask {target} of {height * width} patches")
    mask = np.zeros((height, width), dtype=bool)
    largest = target if max_block is None else max_block
    low, high = math.log(aspect[0]), math.log(aspect[1])
    count = 0
    while count < target:
        added = _add_block(rng, mask, min_block, min(target - count, largest), low, high, attempts)
        if added == 0:
            break
        count += added
    flat = mask.reshape(-1)
    if exact and count < target:
        flat[rng.choice(np.flatnonzero(~flat), target - count, replace=False)] = True
    return flat


def _add_block(
    rng: np.random.Generator, mask: np.ndarray, smallest: int, room: int, low: float, high: float, attempts: int
) -> int:
    """Lays one rectangle that masks 1..room new patches; returns how many, 0 when no attempt fitted."""
    height, width = mask.shape
    random = rng.random
    for _ in range(attempts):
        # Near the end ``room`` is below ``smallest``; the released code then draws between the two all the same.
        area = smallest + (room - smallest) * random()
        ratio = math.exp(low + (high - low) * random())
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h >= height or w >= width:
            continue
        top, left = int(random() * (height - h + 1)), int(random() * (width - w + 1))
        block = mask[top : top + h, left : left + w]
        new = h * w - int(np.count_nonzero(block))
        if 0 < new <= room:
            block[:] = True
            return new
    return 0


def block_masks(
    rng: np.random.Generator,
    count: int,
    grid: tuple[int, int] = (14, 14),
    target: int = 75,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    attempts: int = 10,
    exact: bool = False,
) -> np.ndarray:
    """(N, H*W) bool: ``count`` masks of ``block_mask``'s distribution from one generator, for whole batches at once.

    All unfinished masks try one rectangle at a time. From some 50 masks on this is faster than one by one, at 256 about
    five times. Datasets draw each mask by itself all the same: theirs depends on its sample alone, not on the batch.
    """
    height, width = grid
    if not 0 < target <= height * width:
        raise ValueError(f"cannot mask {target} of {height * width} patches")
    rows, columns = np.arange(height)[:, None], np.arange(width)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    largest = target if max_block is None else max_block
    masks = np.zeros((count, height, width), dtype=bool)
    masked, failed = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    active = np.arange(count)
    while len(active):
        room = np.minimum(target - masked[active], largest)
        draws = rng.random((4, len(active)))
        area = min_block + (room - min_block) * draws[0]
        ratio = np.exp(low + (high - low) * draws[1])
        h, w = np.rint(np.sqrt(area * ratio)).astype(np.int64), np.rint(np.sqrt(area / ratio)).astype(np.int64)
        top, left = (draws[2] * (height - h + 1)).astype(np.int64), (draws[3] * (width - w + 1)).astype(np.int64)
        inside_rows = (rows >= top[:, None, None]) & (rows < (top + h)[:, None, None])
        blocks = inside_rows & (columns >= left[:, None, None]) & (columns < (left + w)[:, None, None])
        new = (blocks & ~masks[active]).sum((1, 2))
        fits = (h < height) & (w < width) & (new > 0) & (new <= room)
        hit = active[fits]
        masks[hit] |= blocks[fits]
        masked[hit] += new[fits]
        failed[active] += 1
        failed[hit] = 0
        active = active[(masked[active] < target) & (failed[active] < attempts)]
    flat = masks.reshape(count, height * width)
    if exact:
        for number in np.flatnonzero(masked < target):
            free = np.flatnonzero(~flat[number])
            flat[number, rng.choice(free, target - masked[number], replace=False)] = True
    return flat


def mask_tokens(
    rng: np.random.Generator,
    ids: np.ndarray,
    maskable: np.ndarray,
    word_starts: np.ndarray | None = None,
    probability: float = 0.15,
    *,
    mask_id: int,
    vocab_size: int,
    replace: str = "bert",
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's masking (FLAVA section 3.2): of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay.

    The paper says that the tokens are masked "with the [MASK] token"; ``replace="mask"`` takes it at its word, and all
    the chosen tokens become [MASK].

    Without ``word_starts`` each maskable token is chosen by itself with ``probability``. With it, whole words are
    chosen in random order until ``round(probability * maskable tokens)`` tokens are; a word that would exceed the
    number is passed over, and each token of a chosen word draws its own 80/10/10, as in Hugging Face's whole-word
    collator. (That collator counts padding and special tokens too; here 15 % are 15 % of the real tokens.)
    Where there is any maskable token, at least one is chosen.

    Args:
        rng: source of randomness.
        ids: (T,) int token ids.
        maskable: (T,) bool; False for special tokens.
        word_starts: (T,) bool, True where a word begins, or None.
        probability: share of maskable tokens to choose.
        mask_id, vocab_size: of the tokenizer.
        replace: "bert" (80/10/10) or "mask" (all [MASK]).

    Returns:
        masked ids (T,) int64; labels (T,) int64, the original id where chosen and -1 elsewhere.
    """
    ids = np.asarray(ids, dtype=np.int64)
    masked, labels = ids.copy(), np.full(ids.shape, IGNORED, dtype=np.int64)
    places = np.flatnonzero(maskable)
    if not len(places):
        return masked, labels
    if word_starts is None:
        chosen = places[rng.random(len(places)) < probability]
        if not len(chosen):
            chosen = places[rng.integers(len(places), size=1)]
    else:
        chosen = _choose_words(rng, places, np.cumsum(word_starts)[places], probability)
    labels[chosen] = ids[chosen]
    if replace == "mask":
        masked[chosen] = mask_id
        return masked, labels
    fate = rng.random(len(chosen))
    masked[chosen[fate < 0.8]] = mask_id
    random = chosen[(fate >= 0.8) & (fate < 0.9)]
    masked[random] = rng.integers(vocab_size, size=len(random))
    return masked, labels


def _choose_words(rng: np.random.Generator, places: np.ndarray, words: np.ndarray, probability: float) -> np.ndarray:
    """The places, out of ``places``, of randomly chosen whole words; ``words`` (same length) numbers their words."""
    wanted = max(1, round(len(places) * probability))
    borders = (np.flatnonzero(words[1:] != words[:-1]) + 1).tolist()
    starts, ends = [0, *borders], [*borders, len(words)]
    order = rng.permutation(len(starts)).tolist()
    chosen: list[int] = []
    for word in order:
        if len(chosen) == wanted:
            break
        if len(chosen) + ends[word] - starts[word] <= wanted:
            chosen += range(starts[word], ends[word])
    if not chosen:  # every word is longer than what is wanted: one whole word all the same
        chosen = list(range(starts[order[0]], ends[order[0]]))
    return places[chosen]
