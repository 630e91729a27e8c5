"""Random masks of image patches and text tokens.

Shapes: H, W = height and width of the patch grid, T = number of tokens.
"""

import math

import numpy as np

IGNORED = -1  # label of tokens that are not predicted


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
    """Sample a block-wise patch mask (BEiT; FLAVA §3.2) with the distribution of the released FLAVA code.

    Rectangles are added until ``target`` patches are masked, or until ``attempts`` consecutive rectangles mask no
    new patch. A rectangle is smaller than the grid in both directions, so patches at the centre are masked more often.
    With the defaults, 74.47 of 196 patches are masked on average, and exactly 75 in two thirds of the masks.

    Args:
        rng: random generator.
        grid: (H, W) patches.
        target: maximum number of masked patches.
        min_block, max_block: minimum and maximum area of a rectangle, including patches that are already masked;
            ``max_block`` defaults to ``target``.
        aspect: minimum and maximum of height / width, sampled log-uniformly.
        attempts: maximum number of attempts to find a rectangle that masks new patches.
        exact: mask additional single patches at random until exactly ``target`` patches are masked.

    Returns:
        (H*W,) bool, row-major, True = masked. In rare cases, the mask of a small grid is empty if ``exact`` is False.

    Raises:
        ValueError: ``target`` is not between 1 and the number of patches.
    """
    height, width = grid
    if not 0 < target <= height * width:
        raise ValueError(f"target must be in 1..{height * width}, the number of patches, got {target}")
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
    rng: np.random.Generator, mask: np.ndarray, smallest: int, limit: int, low: float, high: float, attempts: int
) -> int:
    """Add a rectangle that masks 1 to ``limit`` new patches; return their number, or 0 if all attempts failed."""
    height, width = mask.shape
    random = rng.random
    for _ in range(attempts):
        # ``limit`` may be smaller than ``smallest``; the area is then between both, as in the released code
        area = smallest + (limit - smallest) * random()
        ratio = math.exp(low + (high - low) * random())
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h >= height or w >= width:
            continue
        top, left = int(random() * (height - h + 1)), int(random() * (width - w + 1))
        block = mask[top : top + h, left : left + w]
        new = h * w - int(np.count_nonzero(block))
        if 0 < new <= limit:
            block[:] = True
            return new
    return 0


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
    """Mask tokens as in BERT (FLAVA §3.2): replace 80 % of the selected tokens with [MASK] and 10 % with random tokens.

    The other 10 % remain unchanged. The FLAVA paper only mentions [MASK]; ``replace="mask"`` replaces all selected
    tokens with [MASK].

    Without ``word_starts``, each maskable token is selected independently with ``probability``. With ``word_starts``,
    whole words are selected in random order, up to ``round(probability * maskable tokens)`` tokens; a word that would
    exceed this number is skipped, and the replacement is sampled for each token, as in Hugging Face's whole-word
    collator. (Hugging Face also counts padding and special tokens; this function counts maskable tokens only.) At least
    one token is selected, unless no token is maskable.

    Args:
        rng: random generator.
        ids: (T,) int token ids.
        maskable: (T,) bool; False for special tokens.
        word_starts: (T,) bool, True at the first token of each word, or None.
        probability: fraction of maskable tokens to select.
        mask_id: id of [MASK].
        vocab_size: vocabulary size of the tokenizer; random tokens are sampled from the entire vocabulary.
        replace: "bert" (80/10/10) or "mask" (all [MASK]).

    Returns:
        Masked ids (T,) int64, and labels (T,) int64: the original id of selected tokens and -1 elsewhere.
    """
    ids = np.asarray(ids, dtype=np.int64)
    masked, labels = ids.copy(), np.full(ids.shape, IGNORED, dtype=np.int64)
    positions = np.flatnonzero(maskable)
    if not len(positions):
        return masked, labels
    if word_starts is None:
        selected = positions[rng.random(len(positions)) < probability]
        if not len(selected):
            selected = positions[rng.integers(len(positions), size=1)]
    else:
        selected = _select_words(rng, positions, np.cumsum(word_starts)[positions], probability)
    labels[selected] = ids[selected]
    if replace == "mask":
        masked[selected] = mask_id
        return masked, labels
    outcome = rng.random(len(selected))
    masked[selected[outcome < 0.8]] = mask_id
    random = selected[(outcome >= 0.8) & (outcome < 0.9)]
    masked[random] = rng.integers(vocab_size, size=len(random))
    return masked, labels


def _select_words(rng: np.random.Generator, positions: np.ndarray, words: np.ndarray, probability: float) -> np.ndarray:
    """Return the positions of randomly selected whole words.

    Args:
        positions: maskable positions.
        words: index of the word at each position.
        probability: fraction of positions to select.
    """
    count = max(1, round(len(positions) * probability))
    borders = (np.flatnonzero(words[1:] != words[:-1]) + 1).tolist()
    starts, ends = [0, *borders], [*borders, len(words)]
    order = rng.permutation(len(starts)).tolist()
    selected: list[int] = []
    for word in order:
        if len(selected) == count:
            break
        if len(selected) + ends[word] - starts[word] <= count:
            selected += range(starts[word], ends[word])
    if not selected:  # each word has more than ``count`` tokens
        selected = list(range(starts[order[0]], ends[order[0]]))
    return positions[selected]
