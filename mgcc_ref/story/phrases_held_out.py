"""Sentence templates kept for StoryBench: training never sees them. Slots as in `phrases_train`."""

APPEAR_PLACE = """
{a} has made itself comfortable {where} | {a} is standing around {where} | {a} pops up {where}
{where} one notices {a} | {where} is where {a} has been placed | it so happens that {a} is {where}
a glance at the picture reveals {a} {where} | the painter adds {a} {where} | what is that {where}? It's {a}
{a} was left {where} | paint {a} {where} | I want {a} {where}
"""

APPEAR_RELATION = """
{a} has made itself comfortable {where} | {a} is standing around {where} | {a} pops up {where}
{where} one notices {a} | it so happens that {a} is {where} | a glance at the picture reveals {a} {where}
the painter adds {a} {where} | {a} was left {where} | {a} keeps watch {where} | paint {a} {where}
I want {a} {where}
"""

MOVE_PLACE = """
{the} relocates and stands {where} from here on | {the} heads off and finally stays {where}
{the} sneaks away and can then be found {where} | {the} does not like its spot and chooses one {where}
{the} gets pushed and comes to a halt {where} | from now on {the} is {where}
a strong hand lifts {the} and sets it down {where} | the painter erases {the} and paints it {where}
{the} has a new position {where} | I want {the} {where} instead
"""

MOVE_RELATION = MOVE_PLACE

STAND_BY = """
{the} has company, for it is {where} | one notices that {the} is {where}
it so happens that {the} stands {where} | {the} keeps watch {where}
a glance at the picture reveals {the} {where} | {the} has made itself comfortable {where}
the painter adds something, so that {the} is {where} | {the} is standing around {where}
"""

LEAVE = """
{the} has had enough and heads off | {the} slips out of sight | {the} is nowhere to be found any more
{the} bids farewell | {the} walks out of the frame | the painter erases {the} | one can no longer find {the}
{the} sets off for a faraway land | somebody makes {the} vanish | get rid of {the}
"""

LEAVE_BOTH = """
neither of the {plural} remains | the pair of {plural} slips out of sight | the painter erases both {plural}
both of the {plural} bid farewell
"""

SWAP = """
{the} ends up where {other} used to be and vice versa | {the} and {other} each take over the other's position
the positions of {the} and {other} are reversed | somebody puts {the} in {other}'s spot and vice versa
{the} and {other} agree to exchange positions | the painter has {the} and {other} reversed
{the} gives its spot to {other} and gets that one's in return | {the} and {other} have their positions reversed
reverse the positions of {the} and {other}
"""

GROW = """
{the} expands to a {size} version of itself | {the} puffs itself up and ends up {size}
{the} is now bigger, in fact {size} | one bite of a magic bun and {the} is {size}
the painter redraws {the} as a {size} one | {the} has changed, for it is bigger and {size}
{the} appears {size} from here on, not as little as before | nobody knows how, but {the} grew {size}
I want {the} to be {size}, not that little
"""

SHRINK = """
{the} contracts to a {size} version of itself | {the} loses air and ends up {size}
{the} is now reduced, in fact {size} | one sip of a magic drink and {the} is merely {size}
the painter redraws {the} as a {size} one, not as big | {the} has changed, for it is reduced and {size}
{the} appears {size} from here on, not as big as before | nobody knows how, but {the} shrank and is {size}
I want {the} to be {size}, not that big
"""

COUNT = """
a couple of {plural} pop up, one {p1}, one {p2} | one of two {plural} is {p1} while the second is {p2}
the painter adds two {plural}: the first {p1}, the second {p2}
two {plural} are standing around, one of them {p1}, one {p2} | {p1} and also {p2} there is one of two {plural}
there happen to be two {plural}, one {p1} and its twin {p2}
a pair of {plural} is left here, one {p1} and its twin {p2}
one notices two {plural}, the one {p1}, the other {p2}
"""

OPENING = """
the curtain rises and we are {setting} | everybody has gathered {setting} | what follows took place {setting}
think of a scene {setting} | a scene {setting} is what we draw | the tale I tell unfolds {setting}
the setting is as follows: {setting} | the first page shows a scene {setting} | paint me a scene {setting}
"""

TRAVEL = """
the journey continues and leads them to a scene {setting} | turn the page and they are {setting}
the curtain falls and rises again {setting} | the tale unfolds further {setting}
they have left that place and have gathered {setting} | from here on all of it takes place {setting}
the painter puts the whole scene {setting} | before long the whole company is {setting}
I want all of this {setting}
"""

ALIAS_ALONE = """
the one pictured here is {alias} | allow me to introduce {alias} | let me introduce {alias} | behold {alias}
my album begins with {alias} | may I introduce {alias} | on this photo there is {alias}
take a good look at {alias}
"""

ALIAS_JOINS = """
allow me to introduce one more: {alias} | {alias} has made it here, see the photo
the photo now also contains {alias} | the company grows, for {alias} has come
as pictured, {alias} is with them | who is that? It's {alias} | {alias} drops by | there we also have {alias}
"""

SETTING_SHOWN = """
the photo tells where the journey has led | the journey continues, see the photo
as pictured, the surroundings are different | before long they are elsewhere, as pictured
turn the page to find out where they are | the curtain falls and rises again on this
guess from the photo where they have gathered | this is how it looks around them from here on
"""

DISTRACTOR = """
a clock is ticking somewhere | everybody takes a deep breath | none of this is unusual | such things happen
an old tune is being whistled | one could listen for hours | not much else is going on | that is how it goes
if only {absent} were around | {absent} is out of the question | people miss {absent}
it would be different with {absent}
"""

CONNECTORS = """
moments later | before long | all of a sudden | shortly afterwards | meanwhile
"""

SPECIFIC_SETTINGS = {
    "meadow": "a grassy meadow now surrounds them | the journey leads to a meadow",
    "beach": "the journey leads to the beach | sand and sea now surround them",
    "night": "the evening turns to night | it has become pitch-dark",
    "snow": "a blizzard turns all into snow | deep snow now surrounds them",
    "desert": "a hot desert now surrounds them | the journey leads to the desert",
    "room": "a cosy room now surrounds them | the door closes and they are in a room",
}
