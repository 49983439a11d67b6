"""The invented world: an endless stream of training documents, and questions held out of it."""

from .case import Case, is_held_out
from .facts import unseen_subjects
from .stream import PHENOMENA, documents, held_out_cases

__all__ = ["PHENOMENA", "Case", "documents", "held_out_cases", "is_held_out", "unseen_subjects"]
