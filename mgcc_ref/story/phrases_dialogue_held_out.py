"""Dialogue templates kept for StoryBench: training never sees them. Slots and banks as in `phrases_dialogue`."""

HELD_OUT = {
    "ASK_THINGS": """
could you name all that is visible?
what would one notice here?
describe the contents, please?
what catches the eye?
what has the painter put in?
""",
    "TELL_THINGS": """
one notices {things}
the painter has put in {things}
my eye meets {things}
well, {things}
""",
    "ASK_MORE": """
does it contain more than that?
what remains?
what have you left out?
and besides?
""",
    "TELL_MORE": """
besides, {things}
it also contains {things}
moreover {things}
one notices {things} besides
""",
    "ASK_SETTING": """
could you describe the surroundings?
what scenery is it?
in what surroundings did the painter set it?
and the scenery?
""",
    "TELL_SETTING": """
the painter set it {setting}
everything has been set {setting}
well, {setting}
one would say {setting}
""",
    "ASK_WHERE": """
could you locate {the}?
whereabouts is {the}?
what is the position of {the}?
where has the painter put {the}?
where would one look for {the}?
""",
    "TELL_WHERE": """
one finds it {where}
well, {where}
the painter has put it {where}
its position is {where}
""",
    "GUESS_WHERE": """
could it be that {the} is {where}?
would one look for {the} {where}?
has the painter put {the} {where}?
""",
    "CORRECT_WHERE": """
by no means, it is {where}
you are mistaken, for it is {where}
wrong, one finds it {where}
""",
    "CONFIRM": """
certainly
you are not mistaken
correct
""",
    "ASK_WHERE_TWO": """
could you locate the {plural}?
whereabouts are both {plural}?
where has the painter put the two {plural}?
""",
    "TELL_WHERE_TWO": """
one finds one {p1}, its twin {p2}
one was put {p1} and its twin {p2}
well, one {p1} while the other is {p2}
""",
    "ASK_SIZE": """
could you tell the size of {the}?
what are the dimensions of {the}?
has the painter made {the} big or small?
""",
    "TELL_SIZE": """
one would call it {size}
the painter has made it {size}
well, {size}
""",
    "ASK_ABSENT": """
would one notice {absent}?
has the painter put in {absent}?
does it contain {absent}?
""",
    "DENY": """
by no means
you would look for that in vain
nothing of the sort
""",
    "ASK_PRESENT": """
would one notice {present}?
has the painter put in {present}?
does it contain {present}?
""",
    "AFFIRM": """
certainly
it does
one can hardly miss it
""",
    "ASK_COUNT": """
could you count them?
what do they add up to?
""",
    "TELL_COUNT": """
they add up to {number}
altogether {number}
""",
    "ASK_ASIDE": """
would you hang it on a wall?
is it an old painting?
""",
    "TELL_ASIDE": """
I would rather not tell
opinions differ
""",
}
