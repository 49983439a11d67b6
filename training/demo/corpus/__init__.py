"""The invented world: an endless stream of training documents, and questions held out of it."""

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.facts import unseen_subjects
from training.demo.corpus.stream import PHENOMENA, documents, held_out_cases

__all__ = ["PHENOMENA", "Case", "documents", "held_out_cases", "is_held_out", "unseen_subjects"]
