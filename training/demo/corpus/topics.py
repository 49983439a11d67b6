"""The topics of ordinary prose: which nouns, verbs, adjectives and places go together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """The words of one topic; lists run from the commonest word to the rarest.

    things: singular nouns, each with its own few adjectives.
    acts: verbs as (base form, past form), all taking a thing as object.
    happens: verbs as (base form, past form) of which a thing is the subject.
    """

    name: str
    places: tuple[str, ...]
    workers: tuple[str, ...]
    things: dict[str, tuple[str, ...]]
    acts: tuple[tuple[str, str], ...]
    happens: tuple[tuple[str, str], ...]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((base, past) for base, past in (item.split("/") for item in text.split()))


def _things(text: str) -> dict[str, tuple[str, ...]]:
    entries = (entry.split(":") for entry in text.split())
    return {noun: tuple(adjectives.split(",")) for noun, adjectives in entries}


def topics() -> tuple[Topic, ...]:
    """The twelve topics."""
    return (
        Topic(
            "sea",
            ("harbour", "beach", "island", "lighthouse"),
            ("sailor", "captain", "fisherman"),
            _things(
                "boat:small,old,wooden ship:large,white,slow wave:high,cold,grey net:heavy,wet "
                "storm:sudden,terrible fish:silver,fresh anchor:rusty,heavy sail:white,torn"
            ),
            _pairs("watch/watched repair/repaired paint/painted follow/followed lose/lost"),
            _pairs("sink/sank return/returned turn/turned drift/drifted disappear/disappeared"),
        ),
        Topic(
            "farm",
            ("field", "barn", "orchard", "village"),
            ("farmer", "shepherd", "gardener"),
            _things(
                "cow:brown,fat,old horse:young,strong,black field:green,wide apple:red,ripe "
                "hen:white,noisy tractor:new,green fence:broken,wooden harvest:poor,good"
            ),
            _pairs("buy/bought feed/fed sell/sold count/counted plant/planted clean/cleaned"),
            _pairs("grow/grew sleep/slept run/ran wait/waited fall/fell"),
        ),
        Topic(
            "school",
            ("school", "classroom", "library", "playground"),
            ("teacher", "student", "pupil"),
            _things(
                "lesson:long,difficult,short book:old,thick,heavy question:simple,difficult,good "
                "exam:final,hard pencil:blue,short story:strange,short map:large,old "
                "answer:wrong,right"
            ),
            _pairs("read/read write/wrote forget/forgot learn/learned explain/explained"),
            _pairs("begin/began end/ended surprise/surprised matter/mattered change/changed"),
        ),
        Topic(
            "market",
            ("market", "shop", "bank", "square"),
            ("merchant", "baker", "clerk"),
            _things(
                "price:high,low,fair coin:gold,silver,false basket:full,empty bread:fresh,warm "
                "coat:warm,long,cheap debt:large,old bargain:good,rare cheese:yellow,soft"
            ),
            _pairs("pay/paid sell/sold buy/bought weigh/weighed offer/offered steal/stole"),
            _pairs("rise/rose fall/fell cost/cost change/changed double/doubled"),
        ),
        Topic(
            "science",
            ("laboratory", "museum", "university", "observatory"),
            ("scientist", "professor", "engineer"),
            _things(
                "theory:new,simple,strange experiment:careful,long,failed star:distant,bright "
                "machine:complex,small,noisy result:surprising,clear particle:tiny,fast "
                "telescope:powerful,old sample:pure,frozen"
            ),
            _pairs("study/studied measure/measured test/tested discover/discovered build/built"),
            _pairs("fail/failed work/worked explode/exploded shine/shone move/moved"),
        ),
        Topic(
            "music",
            ("theatre", "concert hall", "church", "studio"),
            ("singer", "composer", "conductor"),
            _things(
                "song:sad,famous,old piano:grand,black,old melody:slow,simple voice:deep,clear "
                "drum:loud,small concert:free,long orchestra:large,young tune:merry,short"
            ),
            _pairs("play/played hear/heard write/wrote practise/practised record/recorded"),
            _pairs("begin/began stop/stopped sound/sounded echo/echoed end/ended"),
        ),
        Topic(
            "government",
            ("parliament", "town hall", "ministry", "embassy"),
            ("mayor", "minister", "president"),
            _things(
                "law:new,strict,unjust vote:secret,final,close tax:high,new treaty:secret,broken "
                "speech:long,angry,famous party:small,powerful budget:secret,small "
                "plan:bold,careful"
            ),
            _pairs("sign/signed reject/rejected discuss/discussed support/supported read/read"),
            _pairs("pass/passed fail/failed change/changed begin/began surprise/surprised"),
        ),
        Topic(
            "kitchen",
            ("kitchen", "restaurant", "bakery", "cellar"),
            ("cook", "waiter", "butcher"),
            _things(
                "soup:hot,thin,spicy knife:sharp,long cake:sweet,large,burnt pot:heavy,black "
                "onion:small,fresh oven:hot,clean plate:broken,white potato:boiled,large"
            ),
            _pairs("cook/cooked eat/ate cut/cut wash/washed serve/served burn/burned"),
            _pairs("boil/boiled burn/burned break/broke cool/cooled fall/fell"),
        ),
        Topic(
            "sport",
            ("stadium", "gym", "pool", "park"),
            ("player", "runner", "coach"),
            _things(
                "game:close,long,final race:fast,hard team:strong,young,weak ball:round,lost "
                "match:final,dull goal:late,lucky record:old,national medal:bronze,golden"
            ),
            _pairs("win/won lose/lost watch/watched miss/missed celebrate/celebrated"),
            _pairs("end/ended begin/began improve/improved continue/continued stop/stopped"),
        ),
        Topic(
            "weather",
            ("valley", "mountain", "coast", "forest"),
            ("guide", "hunter", "pilot"),
            _things(
                "wind:cold,strong,warm cloud:dark,white rain:heavy,light river:deep,frozen "
                "snow:deep,fresh path:narrow,steep tree:tall,bare night:dark,clear"
            ),
            _pairs("see/saw fear/feared cross/crossed follow/followed remember/remembered"),
            _pairs("come/came change/changed rise/rose stay/stayed turn/turned"),
        ),
        Topic(
            "hospital",
            ("hospital", "clinic", "ward", "pharmacy"),
            ("doctor", "nurse", "patient"),
            _things(
                "medicine:bitter,new,strong wound:deep,small fever:high,sudden bed:clean,narrow "
                "cure:rare,simple needle:thin,clean operation:long,dangerous bandage:white,tight"
            ),
            _pairs("need/needed examine/examined check/checked prepare/prepared refuse/refused"),
            _pairs("help/helped hurt/hurt heal/healed work/worked return/returned"),
        ),
        Topic(
            "travel",
            ("station", "airport", "hotel", "border"),
            ("driver", "traveller", "guard"),
            _things(
                "train:late,slow,fast ticket:cheap,lost,single journey:long,tiring "
                "road:narrow,dark suitcase:heavy,old,lost bus:crowded,empty "
                "passport:old,false car:red,stolen"
            ),
            _pairs("take/took miss/missed find/found lose/lost leave/left need/needed"),
            _pairs("arrive/arrived leave/left stop/stopped break/broke wait/waited"),
        ),
    )
