"""Question and answer templates of dialogues that training may use; `phrases_dialogue_held_out` holds StoryBench's.

One template a line; a choice <such/like> this makes several of one. Slots: {things} "a large fox and two cakes",
{setting} a background phrase, {the} "the fox" or "it", {where} a place or relation phrase, {plural} "cakes", {p1} {p2}
place phrases, {size} a size word, {absent} a thing that is not there, {present} one that is, {number} a count in words.
"""

TRAIN = {
    "ASK_THINGS": """
what do you see?
what is in the picture?
what can you see?
what is there?
tell me what is in the picture?
what does the picture show?
which things do you see?
who or what is there?
what is to be drawn?
what should be in it?
what do we have here?
can you tell me what you see?
which things can be seen?
what did the artist draw?
what is shown here?
list what is there?
what is the first thing that you see?
<can you/would you/please/will you> <say/list/show me/tell me/count up> what <is there/you see/it shows/you have>?
what <things/objects/stuff> <does it have/are there/can be found/did you draw/do you find>?
what <fills/makes up/is part of> the <picture/page/scene>?
""",
    "TELL_THINGS": """
I see {things}
there is {things}
I can see {things}
it shows {things}
{things}
you can see {things}
we have {things}
it is {things}
look, {things}
the artist drew {things}
I notice {things}
there we have {things}
the picture has {things}
<I find/I spot/I recognise/I drew/one sees/there stand/there is just/mainly/first of all/let me see,/hm,/oh,/here \
we find/the page shows/the scene has/it is a picture of> {things}
""",
    "ASK_MORE": """
what else?
what else do you see?
is there anything else?
anything more?
who else is there?
and what else is there?
can you see more?
is that all?
what did you not tell yet?
is something missing?
does it show more?
<what/which things/who> <is left/comes next/is still there/is there too/did you forget>?
<go on/continue/keep going/tell me more>, <what else is there/is there more>?
<and/so> <what more/anything else/what other things>?
""",
    "TELL_MORE": """
there is also {things}
also {things}
I see {things} too
{things}
and {things} as well
yes, {things}
it shows {things} too
I notice {things} as well
then there is {things}
<I find/I spot/I recognise/I drew/there stand/there is just/let me see,/hm,/oh,/next to that stuff/beyond that/on \
top of that/in addition/as well as that/it has/do not forget> {things}
""",
    "ASK_SETTING": """
where are we?
where is that?
what is the background?
what does the place look like?
where does it happen?
what is behind all that?
which place is it?
where was it taken?
what is the setting?
what is around them?
what kind of place is that?
where did the artist put all this?
can you tell me about the place?
<what/which> <scene/landscape/place/area/region> is <it/this/that/shown>?
<where/in which place> <does it play/do they live/do they stand/was it drawn>?
<how does/what does> <the background/the world around them/the land> look<, tell me/>?
""",
    "TELL_SETTING": """
we are {setting}
it is {setting}
{setting}
they are {setting}
all of it is {setting}
it happens {setting}
that is {setting}
the scene is {setting}
the artist put it {setting}
I would say {setting}
everything is {setting}
all that stands {setting}
<they live/they stand/it plays/it takes place/we find ourselves/all this is/it looks like a place/I drew it/hm,/oh,/\
let me see,/of course/clearly/I am sure that it is> {setting}
""",
    "ASK_WHERE": """
where is {the}?
where do you see {the}?
where can I find {the}?
where does {the} stand?
where exactly is {the}?
and {the}, where is that?
where should {the} be?
in which place is {the}?
can you tell me where {the} is?
where did they put {the}?
do you know where {the} is?
and where is {the}?
in which part is {the}?
where did the artist put {the}?
where must I look for {the}?
tell me the place of {the}?
what about {the}, where is it?
which spot does {the} have?
<in which/at which/on which> <spot/place/part/corner/side> <is/stands/sits/can I see> {the}?
<please/can you/would you/will you> <show me/say/point out/explain> where {the} <is/stands/sits/was put>?
<what/which> is the <spot/place> of {the}?
<I do not see/I cannot find/I am looking for/I lost> {the}, where is it?
<does/has> {the} have a place?
""",
    "TELL_WHERE": """
it is {where}
{where}
you can find it {where}
it stands {where}
it sits {where}
I see it {where}
that one is {where}
look, it is {where}
I find it {where}
we can find it {where}
its place is {where}
the artist put it {where}
I would say {where}
it was put {where}
that is easy, {where}
you have to look {where}
its spot is {where}
<it lives/it waits/it rests/you see it/I drew it/someone put it/it has its place/it belongs/look for it/I spot it/\
we see it/it can be seen/it must be/hm,/oh,/let me see,/of course/clearly/I am sure, it is/if you look, it is/I \
believe/probably/right> {where}
<it is/that is> <simple/clear/easy>: {where}
""",
    "GUESS_WHERE": """
is {the} {where}?
do you see {the} {where}?
is it true that {the} is {where}?
does {the} stand {where}?
I think {the} is {where}, right?
should {the} be {where}?
can {the} be found {where}?
can it be that {the} sits {where}?
do I have to look for {the} {where}?
did the artist put {the} {where}?
<is/was/would> {the} <placed/drawn/put/found/seen> {where}?
<I guess/I suppose/I would say/I bet/maybe/perhaps> {the} <is/sits/stands> {where}<, yes/, true/, correct>?
<am I right that/do you agree that/are you sure that/could you say that> {the} <is/sits/stands> {where}?
""",
    "CORRECT_WHERE": """
no, it is {where}
no, {where}
not there, it is {where}
no, you can find it {where}
no, it stands {where}
not quite, it is {where}
that is wrong, it is {where}
no, not at all, it is {where}
wrong, it sits {where}
not really, we find it {where}
no, the artist put it {where}
not so, {where}
<no/nope/false/not so/oh no/never/not true/not at all/that is not right/you are wrong/I do not agree>, <it is/it \
sits/it stands/you see it/I put it/look/it lives/its place is> {where}
<almost/good guess/nice try>, but <it is/it stands/look> {where}
""",
    "CONFIRM": """
yes
yes, it is
that is right
yes, exactly
right
indeed
sure
that is true
you are right
of course
so it is
<yes/right/sure/exactly/true/absolutely/definitely/good guess/you got it/well done/I agree/it is/just so/precisely>
<yes/right/sure>, <that is it/you are right/I agree/good/there it is/well seen>
""",
    "ASK_WHERE_TWO": """
where are the {plural}?
where do you see the {plural}?
where can I find the two {plural}?
where are the two {plural}?
where do the {plural} stand?
and the {plural}, where are they?
in which places are the {plural}?
where did the artist put both {plural}?
where must I look for the {plural}?
where are both {plural}?
<in which/on which> <spots/places/sides> <are/stand/sit> the <{plural}/two {plural}>?
<please/can you/will you> <show me/say/point out> where the <{plural}/two {plural}> <are/stand/sit>?
<I do not see/I cannot find/I lost> the {plural}, where are they?
""",
    "TELL_WHERE_TWO": """
one is {p1} and one {p2}
one {p1}, the other {p2}
the first is {p1}, the second {p2}
you can see one {p1} and one {p2}
one is {p1}, the other one {p2}
I find one {p1}, the other {p2}
one was put {p1}, the other {p2}
the artist put one {p1} and one {p2}
this one {p1}, that one {p2}
I would say one {p1} and one {p2}
<one/the first/this one> <stands/sits/lives/waits/rests> {p1}<, / and ><one/the other/the second/that one> <stands/\
sits/lives/waits/rests> {p2}
<hm/oh/let me see/of course/clearly>, <one/the first> {p1} and <one/the other/the second> {p2}
""",
    "ASK_SIZE": """
how big is {the}?
what size does {the} have?
how large is {the}?
is {the} big or small?
what size is {the}?
how big should {the} be?
can you tell me how big {the} is?
did the artist make {the} big or little?
<what/which> <size/height> <is/has> {the}?
<please/can you/will you> <say/tell me/show me> <how big/how large/how tall> {the} <is/should be/looks>?
is {the} <large or small/little or large/a big one or a small one>?
""",
    "TELL_SIZE": """
it is {size}
{size}
it looks {size}
it is a {size} one
rather {size}
{size}, I would say
the artist made it {size}
I would call it {size}
it is quite {size}
<it has grown/it was drawn/I drew it/they made it/it seems/hm,/oh,/let me see,/of course/clearly/I am sure it is/\
really/fairly/I believe it is/make it> {size}
""",
    "ASK_ABSENT": """
is there {absent}?
do you see {absent}?
can you see {absent} too?
what about {absent}?
is {absent} there as well?
did you see {absent} somewhere?
can {absent} be found there?
did the artist draw {absent}?
does it show {absent}?
<do you find/do you spot/could you see/have you seen/have we got/do we have/is it true that there is/does the \
picture have/does the scene have/should there be/did you draw/I wonder, is there/and/maybe/perhaps/how about> \
{absent}?
<can I/can we/would you> <find/see/spot> {absent} <there/in it/somewhere/too>?
""",
    "DENY": """
no
no, there is not
no, I do not see one
not at all
no, none
there is none
I cannot find one
no, nothing like that
certainly not
<no/nope/never/not here/oh no/not that/nothing/not one/none at all/I do not think so/I am afraid not/sorry, no/no way>
<no/nope/sorry>, <not here/there is no such thing/it has none/I see none/I cannot see that/nobody drew one/that one \
is not there/it is not in the picture/not that I know>
<there is no such thing/it has none/I see none/that does not exist here/that is not shown/I did not draw that/\
nobody put that there/you will not find that>
""",
    "ASK_PRESENT": """
is there {present}?
do you see {present}?
is {present} in the picture?
can you see {present}?
does it show {present}?
did the artist draw {present}?
can {present} be seen?
<do you find/do you spot/could you see/have you seen/have we got/do we have/is it true that there is/does the \
picture have/does the scene have/should there be/I wonder, is there/and/maybe/perhaps/how about> {present}?
<can I/can we/would you> <find/see/spot> {present} <there/in it/somewhere/too>?
""",
    "AFFIRM": """
yes
yes, there is
yes, I can see it
sure
of course
it does show that
you can see it
that is right
<yes/sure/right/exactly/true/absolutely/definitely/I think so/there is one/it has one/I see one/it is there/I drew \
one/you will find it>
<yes/sure>, <it has one/I see one/it is there/I drew one/you will find it>
""",
    "ASK_COUNT": """
how many things are there?
how many things do you see?
how many are there in all?
what is the number of things?
<what is/tell me/do you know/can you say> <the number/how many there are/how many you see>?
<how many/what number of> <objects/things/items> <does it have/do you find/did you draw>?
""",
    "TELL_COUNT": """
{number}
there are {number}
{number} in all
I count {number}
<I see/I find/I drew/it has/it should be/it must be/hm,/let me see,/exactly/in total/all told> {number}
""",
    "ASK_ASIDE": """
do you like it?
is it a nice picture?
are you sure?
did you draw it?
is it a photo?
is anyone happy there?
would you buy it?
is the picture new?
who made it?
<do you/would you/will you> <like it/show it to a friend/keep it/hang it up/sell it/draw another one>?
is it <nice/pretty/funny/old/yours/finished/hard to draw/made by hand>?
""",
    "TELL_ASIDE": """
I think so
yes, very much
I am not sure
that is hard to say
maybe
who knows
I cannot tell
that depends
ask me later
<yes/no/perhaps/a little/not really/of course/why not/ask someone else/I forgot/it depends/good question/you decide/\
we will see>
""",
}
