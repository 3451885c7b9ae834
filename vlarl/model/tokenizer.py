"""The tiny model's tokenizer: a byte-level BPE with Qwen3.5's pre-tokenizer, trained right here.

The trained files are shipped in `assets/tiny_tokenizer`; `python -m vlarl.model.tokenizer FOLDER`
makes them again, byte for byte. Bigger presets bring the tokenizer of their backbone and only get
the view tags added. Words that are not in the corpus below still encode, as bytes or pieces.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX, Qwen3_5Tokenizer

from vlarl.embodiment import Embodiment
from vlarl.prompt import prompt
from vlarl.types import VIEWS

ASSETS = Path(__file__).parent / "assets" / "tiny_tokenizer"
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = 1536
"""Upper bound of the BPE part; a corpus this small ends below it."""

_OBJECTS = (
    "spoon carrot eggplant cube block bowl plate cup mug towel basket drawer box sink tray can "
    "bottle banana apple lemon orange tomato potato ball ring peg toy pen knife fork sponge"
)
_COLORS = "red green blue yellow purple white black gray brown pink orange"
_VERBS = "put place move push pull pick lift stack slide drop bring take turn open close"
_RELATIONS = (
    "on onto in into inside under behind near beside between above below left right front back of "
    "to from top bottom corner edge center middle next the a an and it its with away up down"
)
_ROBOTS = (
    "WidowX Franka Aloha Google Fetch GR1 humanoid mobile gripper hand dexterous bimanual joint "
    "arm tabletop base waist wheels camera wrist ego left right view image"
)
_WORDS = (
    "Where What Which How Is Are there this that these those object objects see pixel row column "
    "position at scene table robot answer yes no one two three four five many color shape size "
    "big small user assistant system point box x y z distance moving still first second then "
    "before after stop go forward backward meters degrees walk navigate reach find grasp release "
    "task instruction please Please carefully slowly"
)


def special_tokens() -> list[str]:
    """Every token outside the BPE, in the order of their ids."""
    tags = [f"<|{view}_{end}|>" for view in VIEWS for end in ("start", "end")]
    return [*CONTROL_TOKENS, *tags]


def corpus() -> Iterator[str]:
    """Sentences whose words deserve a token of their own."""
    for dual_arm, waist, mobile_base in product((False, True), repeat=3):
        robot = Embodiment(
            "any", "a 6-joint tabletop arm", dual_arm, waist, mobile_base, 5.0, 16, ()
        )
        yield prompt(robot, "put the carrot on the plate", 16)
    for thing in _OBJECTS.split():
        yield f"Where is the {thing}? What is in the {thing}? Put the {thing} on the {thing}."
        for color in _COLORS.split():
            yield f"Where is the {color} {thing}? put the {color} {thing} on the {color} {thing}"
    for word in " ".join((_VERBS, _COLORS, _RELATIONS, _ROBOTS, _WORDS)).split():
        yield f"{word} {word} {word.capitalize()} {word.capitalize()} {word} the {word}."


def train() -> Qwen3_5Tokenizer:
    """Train the tiny tokenizer; deterministic."""
    bpe = Tokenizer(BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.decoder = decoders.ByteLevel()
    # Must equal Qwen3_5Tokenizer's own, which splits digits one by one.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    model = _bpe_parts(bpe)
    tokenizer = Qwen3_5Tokenizer(vocab=model[0], merges=model[1])
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens()[1:]})
    return tokenizer


def _bpe_parts(bpe: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    parts = json.loads(bpe.to_str())["model"]
    return parts["vocab"], [tuple(merge) for merge in parts["merges"]]


def load_tiny_tokenizer() -> Qwen3_5Tokenizer:
    """The shipped tokenizer."""
    return Qwen3_5Tokenizer.from_pretrained(ASSETS)


def token_id(tokenizer: Qwen3_5Tokenizer, token: str) -> int:
    """The one id of a special token.

    Raises:
        ValueError: if the tokenizer does not know it as a single token.
    """
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"special token {token!r} encodes to {len(ids)} ids, it must be one")
    return int(ids[0])


if __name__ == "__main__":
    train().save_pretrained(sys.argv[1])
