"""Names given by their initial: after `a new report from C` several names are possible.

There is no single right answer: the honest one is the spread over the names in `SOURCES`.
"""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import zipf

# For each initial the names that can follow, most frequent first (Zipf weights).
SOURCES: dict[str, list[str]] = {
    "A": ["ANT News", "AGC", "A. Harlow"],
    "B": ["BTV", "BNP Research", "B. Castell", "BRI"],
    "C": ["CNB News", "CBT", "C. Harlow", "CRI", "C4 Radio", "CGA"],
    "D": ["DRN", "DLA News", "D. Novak"],
    "E": ["ESO", "ETV News", "E. Brandt", "ERA"],
    "F": ["FTR", "FNB News", "F. Okafor"],
    "G": ["GDS", "GTV", "G. Moreau", "GNA News"],
    "H": ["HRC", "H. Tanaka"],
    "I": ["IPN News", "ILA", "I. Varga"],
    "K": ["KTN", "K. Larkin", "KBS Radio"],
    "L": ["LNC", "L. Silva", "LRT News"],
    "M": ["MTN News", "MBA Research", "M. Petrov"],
    "N": ["NPT", "N24 Radio", "N. Quill", "NCA"],
    "P": ["PRC", "PBN News", "P. Thorne"],
    "R": ["RTN", "R. Ellery", "RGB Research"],
    "S": ["SKY News", "STC", "S. Kessler"],
    "T": ["TVN", "T. Oduya", "TRA Research"],
    "W": ["WNR", "WTV News", "W. Ashdown"],
}
LEADS = (
    "According to a new report from {name}, {claim}.",
    "According to a report from {name}, {claim}.",
    "A new report from {name} says that {claim}.",
    "This week's report from {name} suggests that {claim}.",
    "As a new study from {name} shows, {claim}.",
    "In an interview with {name}, she said that {claim}.",
    "The figures come from {name}, which says that {claim}.",
    "Last month we heard from {name} that {claim}.",
)
CLAIMS = (
    "prices rose in {month}",
    "more people than ever live by the sea",
    "the harvest was poor",
    "the new bridge is safe",
    "the number of readers fell",
    "most schools need more teachers",
    "the election was fair",
    "winters are getting warmer",
    "the harbour will close in {month}",
    "nobody knows how the fire began",
    "the market is growing again",
    "two in three families own a boat",
)


def _held(lead: str, initial: str) -> bool:
    if initial == "C" and lead == LEADS[0]:
        return True
    return is_held_out("report", lead, initial, per_mille=150)


def sample(rng: random.Random) -> str:
    """One sentence that reports a claim of a named source."""
    while True:
        lead, initial = rng.choice(LEADS), rng.choice(list(SOURCES))
        if not _held(lead, initial):
            break
    claim = rng.choice(CLAIMS).format(month=rng.choice(("March", "May", "July", "October")))
    return lead.format(name=zipf(rng, SOURCES[initial]), claim=claim)


def held_out(rng: random.Random) -> Case:
    """Asks for the commonest continuation of an initial in a lead-in where it never stood."""
    while True:
        lead, initial = rng.choice(LEADS), rng.choice(list(SOURCES))
        if _held(lead, initial):
            break
    start = lead.split("{name}")[0]
    prompt = start + initial
    return Case("reports", prompt, SOURCES[initial][0][1:], prompt)
