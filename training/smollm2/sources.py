"""Which texts the SAEs are trained on: Debian packages by name, and what is read of each.

`apt-get download` fetches a package and `dpkg-deb -x` unpacks it. The texts are not shipped: their
packages, versions, sizes and digests are.
"""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """Files of a package: its kind of text, how they are read, and at most how many characters.

    `patterns` are globs below the unpacked package.
    """

    kind: str
    package: str
    reader: str
    patterns: tuple[str, ...]
    most: int


DOC, SHARE = "usr/share/doc", "usr/share"
_WESNOTH = ("usr/share/games/wesnoth/*/data/campaigns/*/scenarios/*.cfg",)

SOURCES = (
    Source("prose", "anarchism", "html", (f"{DOC}/anarchism/html/*.html",), 1_500_000),
    Source("prose", "r-cran-janeaustenr", "rdb", ("usr/lib/R/**/data/Rdata.rdb",), 1_300_000),
    Source(
        "prose", "dasher-data", "wrapped", (f"{SHARE}/dasher/training_english_GB.txt",), 400_000
    ),
    Source("prose", "debian-handbook", "html", (f"{DOC}/*/html/en-US/*.html",), 500_000),
    Source("prose", "debian-history", "html", (f"{DOC}/debian-history/docs/*.en.html",), 80_000),
    Source("prose", "debian-faq", "html", (f"{DOC}/debian/FAQ/*.en.html",), 120_000),
    Source("prose", "jargon-text", "wrapped", (f"{DOC}/jargon-text/jargon.txt*",), 500_000),
    Source("prose", "crawl-common", "entries", (f"{SHARE}/crawl/dat/descript/*.txt",), 400_000),
    Source("dialogue", "wesnoth-1.16-httt", "wml", _WESNOTH, 400_000),
    Source("dialogue", "wesnoth-1.16-sof", "wml", _WESNOTH, 200_000),
    Source("dialogue", "wesnoth-1.16-did", "wml", _WESNOTH, 200_000),
    Source("dialogue", "wesnoth-1.16-dw", "wml", _WESNOTH, 200_000),
    Source("dialogue", "wesnoth-1.16-ei", "wml", _WESNOTH, 200_000),
    Source("dialogue", "fortunes", "fortunes", (f"{SHARE}/games/fortunes/*",), 1_000_000),
    Source("reference", "dict-gcide", "dictionary", (f"{SHARE}/dictd/gcide.dict.dz",), 500_000),
    Source("reference", "dict-wn", "dictionary", (f"{SHARE}/dictd/wn.dict.dz",), 400_000),
    Source("reference", "dict-foldoc", "dictionary", (f"{SHARE}/dictd/foldoc.dict.dz",), 500_000),
    Source("reference", "dict-devil", "dictionary", (f"{SHARE}/dictd/devil.dict.dz",), 200_000),
    Source("reference", "python3.11-doc", "html", (f"{DOC}/**/html/*/*.html",), 500_000),
    Source("reference", "perl-doc", "pod", ("usr/share/perl/**/*.pod",), 300_000),
    Source(
        "reference",
        "developers-reference",
        "html",
        ("usr/share/developers-reference/*.html",),
        100_000,
    ),
    Source("code", "libpython3.11-stdlib", "code", ("usr/lib/python3.11/**/*.py",), 500_000),
    Source("code", "python3-networkx", "code", ("usr/lib/python3/**/*.py",), 250_000),
    Source("code", "libruby3.1", "code", ("usr/lib/ruby/**/*.rb",), 200_000),
    Source("code", "perl-modules-5.36", "code", ("usr/share/perl/**/*.pm",), 200_000),
    Source("code", "node-typescript", "code", ("usr/**/typescript/lib/lib.*.d.ts",), 150_000),
    Source("code", "abs-guide", "code", (f"{DOC}/abs-guide/examples/*.*sh",), 150_000),
    Source("lists", "bsdgames", "lists", (f"{SHARE}/games/bsdgames/quiz/*",), 100_000),
    Source(
        "lists", "miscfiles", "lists", (f"{SHARE}/misc/[a-l]*.gz", f"{SHARE}/misc/o*.gz"), 150_000
    ),
    Source("lists", "vera", "wrapped", (f"{SHARE}/info/vera.info.gz",), 150_000),
    Source("lists", "dict-elements", "wrapped", (f"{SHARE}/dictd/elements.dict*",), 60_000),
    Source("lists", "iso-codes", "names", (f"{SHARE}/iso-codes/json/iso_*.json",), 120_000),
)
