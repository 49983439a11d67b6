"""The word lists of the invented world, and a maker of invented words."""

from __future__ import annotations

import random


def listed(text: str) -> list[str]:
    """The words of `text`."""
    return text.split()


WOMEN = listed(
    "Mary Anna Clara Ruth Helen Alice Emma Laura Sarah Julia Nora Grace Lucy Jane Kate Rosa "
    "Eva Ida Maria Sofia Diana Paula Vera Irene"
)
MEN = listed(
    "John Peter Paul David James Robert Tom Henry Frank George Martin Simon Oscar Adam Daniel "
    "Hugo Leo Max Victor Walter Felix Ivan Karl Edgar"
)
SURNAMES = listed(
    "Smith Porter Harlow Carver Mercer Lindqvist Okafor Tanaka Novak Ferrara Dunmore Whitlock "
    "Brandt Castell Moreau Iverson Quill Hartley Ashdown Petrov Silva Kessler Varga Oduya "
    "Larkin Thorne Beckett Calloway Ellery Fontaine"
)

REAL_CITIES = listed(
    "Paris London Rome Berlin Moscow Madrid Athens Sydney Agra Barcelona Istanbul Prague "
    "Cairo Seattle Toronto"
)
INVENTED_CITIES = listed(
    "Veldor Ashmere Tarnwick Oskara Lumeria Brenholt Calvena Drossel Marisk Penhallow Quorra "
    "Selwick Thessaly Umbria Wexhaven Yarrowby Zandria Halcott Ironvale Norwick"
)
CITIES = REAL_CITIES + INVENTED_CITIES

MONTHS = listed(
    "January February March April May June July August September October November December"
)
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBER_WORDS = listed(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)

# Words of organisation names and technical terms, every initial letter well represented.
TITLE_WORDS = listed(
    "Advanced Agency Analysis Applied Asset Atlantic Bank Basic Board Border Bureau Bridge "
    "Capital Central Centre Climate Coastal Commission Control Council Data Defence Delta "
    "Digital Direct Disease Domestic Eastern Economic Education Energy Engine Exchange Factor "
    "Federal Field Finance Fisheries Food Foreign Forest General Global Grain Gravity Group "
    "Growth Harbour Health Heritage Highway Housing Human Income Index Industry Inland "
    "Institute Investment Joint Journal Junior Justice Kernel Key Kinetic Knowledge Labour "
    "Language Large Law Linear Local Marine Market Memory Model Motor Music National Natural "
    "Network Northern Nuclear Object Ocean Office Open Optical Orbital Pacific Particle "
    "Pension Policy Power Product Public Quality Quantum Quarterly Query Radio Railway Random "
    "Reading Regional Research Rural Safety School Science Signal Social Solar Southern Space "
    "Tax Technical Textile Theory Trade Transport Treaty Union Unit Urban User Value Valley "
    "Vector Vehicle Vision Voice Water Welfare Western Wind Wood World Youth Yield Zone Zinc "
    "Zero"
)

ONSETS = listed(
    "b br c ch cl d dr f fl g gl gr h j k kr l m n p pl pr qu r s sh sk st t th tr v w y z"
)
VOWELS = listed("a e i o u ai ea ee oa ou")
CODAS = listed("b ck d g l ll m n nd ng nt p r rd rk rn s sk st t th x")


def invented_word(rng: random.Random, syllables: int = 2) -> str:
    """A pronounceable lower-case word that is in no list, such as `drastoun`."""
    parts: list[str] = []
    for _ in range(syllables):
        parts += [rng.choice(ONSETS), rng.choice(VOWELS)]
    return "".join(parts) + rng.choice(CODAS)


def article(noun: str) -> str:
    """`a` or `an` before `noun` (by its first letter)."""
    return "an" if noun[0].lower() in "aeiou" else "a"


def zipf(rng: random.Random, options: list[str]) -> str:
    """One of `options`, the first most often: weights 1, 1/2, 1/3, ..."""
    return rng.choices(options, [1 / (rank + 1) for rank in range(len(options))])[0]
