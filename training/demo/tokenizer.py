"""The tokenizer: byte-level BPE trained on the corpus, saved as a Hugging Face fast tokenizer."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from training.demo.corpus.stream import documents
from training.demo.plan import Plan

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"

# Like GPT-2's rule, except that a capital letter not followed by a small one stands alone (so that
# acronyms are spelled letter by letter), digits go in pairs, and punctuation marks stand alone.
WORDS = (
    r"'(?:s|t|re|ve|m|d|ll)(?!\p{L})"
    r"| ?\p{Lu}(?!\p{Ll})"
    r"| ?\p{Lu}?\p{Ll}+"
    r"| ?\p{L}\p{M}*"
    r"| ?\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]"
    r"|\s+(?!\S)|\s+"
)


def train_tokenizer(plan: Plan) -> Tokenizer:
    """A byte-level BPE of `plan.vocab_size` tokens; it can spell any text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = islice(documents(plan.seed, "tokenizer"), plan.tokenizer_documents)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, which `AutoTokenizer` opens offline."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in `folder`."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def marker_id(tokenizer: Tokenizer) -> int:
    """The id of the marker that stands before every document."""
    found = tokenizer.token_to_id(END_OF_TEXT)
    if found is None:
        raise ValueError(f"the tokenizer has no token {END_OF_TEXT!r}")
    return int(found)
