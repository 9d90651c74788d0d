"""Sentence templates that training may use; `phrases_held_out` holds those kept for StoryBench.

Templates are set apart by | or a new line; a choice <such/like> this makes several of one. Slots: {a} "a large fox",
{the} "the fox" or "it", {where} a place or relation phrase, {setting} a background phrase, {size} a size word, {plural}
"balloons", {p1} {p2} place phrases, {other} another object, {alias} "my friend", {absent} a thing that is not there.
"""

from mgcc_ref.story.phrases_train_settings import OPENING, SETTING_SHOWN, SPECIFIC_SETTINGS, TRAVEL

__all__ = ["OPENING", "SETTING_SHOWN", "SPECIFIC_SETTINGS", "TRAVEL"]  # with the banks below

APPEAR_PLACE = """
{a} appears {where} | {a} stands {where} | {a} sits {where} | {a} is {where} | {a} waits {where}
{a} shows up {where} | {a} rests {where} | {a} turns up {where} | {a} can be seen {where} | there is {a} {where}
there stands {a} {where} | here comes {a} and it stays {where} | {where} there is {a} | {where} stands {a}
{where} sits {a} | {where} you can see {a} | {where} we find {a} | we see {a} {where} | we find {a} {where}
you can spot {a} {where} | I can see {a} {where} | they discover {a} {where} | someone puts {a} {where}
{a} takes its place {where} | {a} settles {where} | {a} arrives and stops {where} | look, {a} {where}
{a} has its spot {where} | we put {a} {where} | {a} {where} | add {a} {where} | put {a} {where}
draw {a} {where} | please draw {a} {where} | I would like {a} {where}
{where} we now have {a} | {where} I notice {a} | this time {a} is {where} | {a} has been put {where}
{a} was placed {where} | {a} comes into view {where} | {a} lies {where} | {a} hides {where}
on this page {a} is {where} | the artist draws {a} {where} | the artist paints {a}, and it goes {where}
what do I see {where}? It is {a} | who is there {where}? It is {a} | with a hop {a} gets {where}
{a} belongs {where} | give me {a} {where} | let there be {a} {where} | show {a} {where}
{a} makes a stop {where} | {a} has a place to stay {where} | as if by chance, {a} is {where}
if you look {where}, there is {a} | one day {a} is simply there, {where}
<we/they/the children/some people> <meet/come across/run into/hear/recognise/greet/admire> {a} {where}
<nobody/no one> <expected/can overlook/forgets> {a} {where} | {where}<,/> <there has been/there will be/we get/we \
meet> {a}
<I think/I believe/it seems/it looks as if/everyone knows that/you should know that> {a} <is/stands/sits/stays> \
{where}
{a} <lives/dwells/lingers/camps/relaxes/naps/dozes/poses/parks/lands/stops/stays/remains for a while> {where}
{a} <crawls out and sits/rolls in and stays/strolls in and stops/flies in and lands/hops in and waits> {where}
<quietly/slowly/happily/at first/by now/of course/in fact/as always> {a} <is/stands/waits/can be found> {where}
<look/watch/see/listen/oh/hey/wow>, <there is/that is/it is/I see> {a} {where}
<someone/my sister/the teacher/a child> <leaves/drops/hangs/sets/draws/glues/sketches/hides> {a} {where}
<what/who> is <this/it> {where}? <That is/I think it is/It must be/Oh,> {a}
<make/create/include/imagine/have/sketch/place/set/leave/keep> {a} {where}
<I wish for/I ask for/could you draw/can you add/we need/we want/there should be> {a} {where}
{where} <someone has put/lies/hides/rests/is/waits> {a} | {a}, <yes/no less/all alone/of all things>, <is/sits> \
{where}
"""

APPEAR_RELATION = (
    APPEAR_PLACE
    + """
{a} has come to stand {where} | {a} joins in {where}
"""
)

MOVE_PLACE = """
{the} moves and is now {where} | {the} goes away from its place and stops {where} | {the} is now {where}
{the} changes its place and stands {where} | {the} walks off and stays {where} | {the} now stands {where}
{the} now sits {where} | {the} ends up {where} | {the} slides over and comes to rest {where}
{the} wanders around and stops {where} | {the} hurries off and waits {where} | {the} takes a new spot {where}
{the} finds a better spot {where} | {the} moves over and stays {where} | {the} is no longer there but {where}
{the} drifts away and settles {where} | {the} jumps and lands {where}
{the} wants to be {where}, so it goes there | {the} has moved and is {where} now
{the} gets a new place {where} | someone moves {the} and leaves it {where}
we move {the}, so that it is {where} | someone carries {the} off and puts it {where}
we put {the} {where} instead | the wind takes {the} and drops it {where} | now you can see {the} {where}
now we find {the} {where} | move {the}, it should be {where} | put {the} {where}
move {the} so that it is {where}
{the} leaves its spot and goes to be {where} | {the} rolls on and comes to lie {where}
{the} looks for another place and picks one {where} | {the} prefers to be {where} now
{the} was there long enough, now it is {where} | {the} creeps away and hides {where}
{the} flies off and lands {where} | {the} gets tired of its place and moves, it is {where} now
{the} is pulled away and stands {where} | {the} is pushed and ends up {where}
the artist rubs out {the} and draws it {where} | the artist moves {the}, now it is {where}
somebody picks up {the} and leaves it {where} | a big hand takes {the} and puts it {where}
{the} has a different place now, {where} | since then {the} is {where} | from then on {the} stays {where}
{the} should be {where} instead | I would like {the} to be {where} now | let {the} stand {where}
{the} runs away, then stops {where} | {the} turns around and goes to wait {where}
after some time we find {the} {where} | {the} changes its mind and sits down {where}
{the} <walks/runs/rolls/slides/glides/jumps/flies/crawls/swims/strolls/rushes/travels/marches/tumbles/hops> <away/\
along/off/on/about> and <stops/stays/rests/lands/waits/remains/settles down/comes to stand/makes a stop> {where}
{the} <shifts/changes over/transfers/switches spots/gets going/sets out/turns up again/reappears> and <is/stands/\
sits/lies> {where} <now/at the end/after that/for good/>
<someone/a child/my sister/the teacher/the wind/a wave/a storm> <pulls/pushes/drags/kicks/blows/shoves/rolls/brings/\
guides> {the} <away/along/off/over> and <leaves/drops/lets go of/parks> it {where}
<by now/today/after all that/this time/at present/later on> {the} <is/stands/sits/stays/can be seen/can be found> \
{where}
{the} <is/stands/sits> {where} <now/these days/after the move/for a change/as of now/ever since>
<we/they/I> <bring/carry/take/roll/shift/send/lead> {the} to a new spot {where}
{the} <would rather be/is better off/decides to live/decides to wait/prefers to stand/has chosen to stay> {where}
{the} gives up its <old/first/former> <spot/place> and <stands/sits/is/lives> {where}
<could you move/please move/shift/take/bring/carry/send> {the}, <it belongs/so that it stands/I need it/it has to \
be> {where}
{the} <does not stay/is not happy/cannot stay> where it was<,/ and> <it goes/it moves/it ends up/its new place is> \
{where}
<where did/where has> {the} <go/gone>? <It is/It went and sits/Look,> {where}
"""

MOVE_RELATION = MOVE_PLACE

STAND_BY = """
{the} sits {where} | {the} stands {where} | {the} is {where} | {the} rests {where} | {the} waits {where}
{the} can be seen {where} | {the} likes to be {where} | {the} enjoys being {where} | {the} is happy {where}
{the} is not alone, it is {where} | {the} can be found {where} | {the} stays {where}
{the} takes a break {where} | {the} takes a rest {where} | {the} sleeps {where} | {the} dreams {where}
{the} looks good {where} | {the} feels safe {where} | you can see {the} {where} | we see {the} {where}
we find {the} {where} | you can spot {the} {where} | I can see {the} {where} | {where} sits {the}
{where} stands {the} | {where} we see {the}
{the} has a friend there, because it is {where} | as we can see, {the} is {where} | {the} lies {where}
{the} hides {where} | by chance {the} is {where} | I notice that {the} is {where}
{the} has found a good place {where} | the artist shows that {the} is {where} | {the} belongs {where}
look closely, {the} is {where} | you will see that {the} stands {where} | {the} keeps still {where}
<as you see/by the way/in this picture/at the moment/quietly/of course/in fact>, {the} <is/stands/sits/waits/rests> \
{where}
{the} <lives/dwells/lingers/camps/relaxes/naps/dozes/poses/parks/spends its time> {where}
<I think/I believe/it seems/it looks as if/everyone knows that/you should know that> {the} <is/stands/sits/stays> \
{where}
<someone/a child/the teacher> <put/left/placed/drew> {the} {where} | {the} was <put/left/drawn/placed> {where}
{the} <chose/has/likes/loves/keeps> <a/its> <spot/place> {where} | {the}, you see, <is/stands/rests> {where}
{the} <has company/has good company/has a neighbour/feels at ease/feels welcome>, since it <is/stands> {where}
"""

LEAVE = """
{the} leaves | {the} goes away | {the} disappears | {the} is gone | {the} is no longer there | {the} goes home
{the} says goodbye and leaves | {the} has to go | {the} vanishes | {the} leaves the scene | {the} runs off
{the} is taken away | {the} does not stay any longer | {the} moves out of the picture
{the} goes off and does not come back | {the} gets bored and leaves | {the} has gone away | {the} fades away
{the} departs | {the} is lost | someone takes {the} away | someone takes {the} home | they take {the} away
we say goodbye to {the} | we put {the} away | nobody can see {the} any more | remove {the} | take {the} away
delete {the}
{the} is not there any longer | {the} walks off for good | {the} sneaks out | {the} flies away for ever
{the} is removed | {the} cannot be seen now | the artist rubs out {the} | someone makes {the} disappear
{the} wants to see the world and goes | {the} goes on a journey alone | the picture is without {the} now
{the} waves and walks away | {the} slides out at the edge | no trace of {the} is left | we lose {the}
{the} should not be there any more | rub out {the} | do without {the}
{the} <walks/runs/rolls/slides/flies/crawls/swims/strolls/rushes/marches/hops> <away/off/out> <and is gone/and is \
not seen again/for good/and does not return/into the distance/>
{the} <is tired/is bored/is hungry/is cold/wants something new/has other plans/is done here> and <leaves/goes/goes \
home/is off/disappears>
<someone/a child/my sister/the teacher/the wind/a wave/a storm> <carries/takes/pulls/blows/drags/sweeps> {the} \
<away/out of sight/off for good/far away>
<there is no/gone is> {the} <now/any longer/from now on> | {the} <is hidden/is away/has left us/has departed/went \
missing/is over and out/cannot be found>
<cut out/leave out/throw away/clear away/take out/cross out/drop/hide> {the}<, please/ now/>
<we/they/I> <lose sight of/do not see/wave goodbye to/never again see/send away/let go of> {the} <now/from here/for \
ever/>
<nothing/no sign> of {the} <is left/is there/can be seen> | <where did/where has> {the} <go/gone>? It is <gone/away/\
not here any more>
<a trick/magic/a spell/the teacher> makes {the} <disappear/invisible/go away/leave>
{the} <steps/jumps/slips/climbs/drops> out of the <picture/page/scene/story>
"""

LEAVE_BOTH = """
both {plural} leave | both {plural} go away | both {plural} disappear | the two {plural} are gone
the two {plural} leave | the {plural} go away together | the {plural} vanish | someone takes both {plural} away
we say goodbye to the two {plural} | the {plural} are no longer there | remove both {plural}
take the two {plural} away
none of the {plural} stays | the artist rubs out both {plural} | the two {plural} wave and walk off
the {plural} are both removed | no trace of the two {plural} is left | rub out both {plural}
both {plural} <run/walk/fly/roll/march/hop> <away/off> <and are gone/for good/> | <someone/a storm/the teacher> \
<takes/sweeps/carries> both {plural} <away/off>
the two {plural} <depart/have left/are away/have gone home/went missing/have other plans and leave>
<cut out/leave out/throw away/clear away/take out/cross out> <both {plural}/the two {plural}>
<we/they> <lose sight of/wave goodbye to/send away> <both {plural}/the two {plural}>
<nothing/no sign> of the <{plural}/two {plural}> is left
"""

SWAP = """
{the} and {other} swap places | {the} and {other} change places | {the} swaps places with {other}
{the} changes places with {other} | {the} trades places with {other}
{the} takes the place of {other} and the other way round | {the} and {other} trade places
{the} goes where {other} was, and {other} where {the} was | {the} and {other} exchange their places
{the} and {other} switch | {the} switches with {other} | {the} switches places with {other}
{the} and {other} swap | someone swaps {the} and {other} | someone exchanges {the} and {other}
we swap {the} and {other} | we swap {the} with {other} | we let {the} and {other} change places
they make {the} and {other} swap spots | {the} and {other} swap spots
{the} and {other} have swapped their spots | {the} wants the spot of {other}, so they swap
{the} and {other} play a game and trade spots | now {the} is where {other} was, and the other way round
now {the} and {other} stand in each other's spots | swap {the} and {other} | let {the} and {other} swap places
{the} and {other} turn places around | {the} moves to the place of {other}, and {other} to that of {the}
{the} and {other} each go where the other one was | {the} takes over the spot of {other}, which takes over its own
the artist exchanges {the} and {other} | the places of {the} and {other} are exchanged
somebody puts {the} in the place of {other} and {other} in the place of {the}
{the} gives up its place for {other} and gets the other place | {the} and {other} agree to swap
{other} is now where {the} was, and {the} is where {other} was | exchange {the} and {other}
the spots of {the} and {other} are traded | {the} and {other} cross over to each other's place
{the} and {other} <exchange/switch/swap/trade> <spots/seats/sides/locations/places/homes> <with each other/now/for \
fun/quickly/>
<someone/a child/my sister/the teacher/magic/a spell> <exchanges/switches/swaps/trades> <the places/the spots/the \
seats> of {the} and {other}
{the} <jumps/runs/moves/goes/rolls> to <the spot/the place/the seat> of {other}, <while/and> {other} <jumps/runs/\
moves/goes/rolls> to <its/that of {the}>
{the} <sits/stands/is/waits> where {other} <was/stood/sat>, <while/and> {other} <sits/stands/is/waits> where {the} \
<was/stood/sat>
{the} and {other} <have changed/have switched/have exchanged/have traded/decide to trade/like to exchange/want to \
switch> <spots/seats/places>
<exchange/switch/swap/trade> <the places/the spots> of {the} and {other}<, please/>
{the} <has/takes/gets/wants> the <spot/place/seat> that {other} had, and {other} <has/takes/gets/wants> <the other/\
its one/the one of {the}>
it is a <trade/swap/switch/exchange>: {the} and {other} <go/move/stand> where the other one <was/stood>
{the} and {other} are <switched/swapped/exchanged/changed round/mixed up>, each <is/stands> in the spot of the other
<the place of/where> {the} <is now that of/now belongs to> {other}, and the other way about
"""

GROW = """
{the} grows and is {size} now | {the} grows until it is {size} | {the} becomes {size}
{the} gets bigger and is {size} now | {the} gets {size} | {the} has grown and is {size} | {the} is {size} now
{the} turns {size} | {the} swells until it is {size} | {the} keeps growing until it is {size}
{the} is suddenly {size} | {the} eats a lot and becomes {size} | {the} looks {size} now
{the} comes closer and looks {size} | {the} has become {size} | {the} stretches and gets {size}
{the} drinks a potion and turns {size} | {the} grows up and is {size} | {the} wants to be {size}, so it grows
{the} grows to a {size} size | we make {the} {size} | someone makes {the} {size} | magic makes {the} {size}
a spell makes {the} grow {size} | now {the} is {size} | make {the} {size}
make {the} bigger, it should be {size}
{the} blows itself up and is {size} | the artist makes {the} bigger, it is {size} | {the} doubles and is {size}
{the} gains size and ends up {size} | {the} is not so little any more, it is {size}
the artist draws {the} again, and {size} this time | {the} should be bigger, I would say {size}
{the} <rises/inflates/fills out/stretches itself/shoots up/gets taller/gains weight> and <is/becomes/looks/turns> \
{size}
{the} <is/becomes/gets> <bigger/larger/taller/wider>, <so now it is/it is really/you could call it/that makes it> \
{size}
<by now/today/this time/at present/later on/in the end> {the} <is/looks/has become/has grown> {size}
<someone/a child/the teacher/magic/a spell/the rain/good food> <stretches/enlarges/blows up/pulls> {the} <until/so \
that> it <is/gets> {size}
<enlarge/grow/stretch/scale up> {the}, <it should be/until it is/it has to be> {size}
{the} was <little/smaller/not so big>, <but now/and now/today> it is {size}
{the} <eats/sleeps/drinks/trains> a lot and <is/grows/gets> {size} | {size} is <what/how> {the} is now
the {size} thing there is {the}, it has grown | a <{size}/really {size}/quite {size}> one, that is {the} now that \
it has grown
"""

SHRINK = """
{the} shrinks and is {size} now | {the} shrinks until it is {size} | {the} becomes {size}
{the} gets smaller and is {size} now | {the} gets {size} | {the} has shrunk and is {size} | {the} is {size} now
{the} turns {size} | {the} dwindles until it is {size} | {the} keeps shrinking until it is {size}
{the} is suddenly {size} | {the} loses size and becomes {size} | {the} looks {size} now
{the} is farther off and looks {size} | {the} has become {size} | {the} curls up and gets {size}
{the} drinks a potion and turns {size} | {the} gets shy and makes itself {size}
{the} wants to be {size}, so it shrinks | {the} shrinks to a {size} size | we make {the} {size}
someone makes {the} {size} | magic makes {the} {size} | a spell makes {the} shrink and look {size}
now {the} is {size} | make {the} {size} | make {the} smaller, it should be {size}
{the} folds itself up and is {size} | the artist makes {the} smaller, it is {size} | {the} halves and is {size}
{the} melts away and ends up {size} | {the} is not so big any more, it is {size}
the artist draws {the} again, and {size} this time | {the} should be smaller, I would say {size}
{the} <sinks/deflates/gets thinner/pulls itself together/crumbles/dries up/withers> and <is/becomes/looks/turns> \
{size}
{the} <is/becomes/gets> <smaller/shorter/thinner/lower>, <so now it is/it is really/you could call it/that makes \
it> {size}
<by now/today/this time/at present/later on/in the end> {the} <is/looks/has become/has shrunk and is> {size}
<someone/a child/the teacher/magic/a spell/the cold/the washing> <presses/squeezes/scales down/squashes> {the} \
<until/so that> it <is/gets> {size}
<scale down/shrink/squeeze/press> {the}, <it should be/until it is/it has to be> {size}
{the} was <big/bigger/not so little>, <but now/and now/today> it is {size}
{the} <eats too little/does not sleep/washes too hot/gets cold> and <is/shrinks and is/gets> {size} | {size} is \
<what/how> {the} is now
the {size} thing there is {the}, it has shrunk | a <{size}/really {size}/quite {size}> one, that is {the} now that \
it has shrunk
"""

COUNT = """
two {plural} appear, one {p1} and one {p2} | two {plural} stand here, one {p1}, one {p2}
there are two {plural}, one {p1} and one {p2} | two {plural} arrive, one stays {p1}, the other {p2}
we see two {plural}: one {p1} and one {p2} | we find two {plural}, one {p1} and one {p2}
two {plural} turn up, the first {p1}, the second {p2} | someone brings two {plural} and puts one {p1}, one {p2}
two {plural} show up, one {p1} and another {p2} | two {plural} can be seen, one {p1} and one {p2}
two {plural} wait, one {p1} and the other {p2} | two {plural} sit there, one {p1} and one {p2}
here are two {plural}: one {p1}, the other {p2} | here come two {plural}, one {p1} and one {p2}
I can see two {plural}, one {p1} and one {p2} | you can spot two {plural}, one {p1} and one {p2}
they discover two {plural}, one {p1} and the other {p2}
there stand two {plural}, the first {p1} and the second {p2} | two {plural} rest, one {p1} and one {p2}
two {plural} join in, one {p1}, the other {p2} | two {plural} settle, one {p1} and one {p2}
look, two {plural}, one {p1} and one {p2} | we put up two {plural}, one {p1} and one {p2}
now there are two {plural}, one {p1}, one {p2} | a pair of {plural} appears, one {p1} and one {p2}
add two {plural}, one {p1} and one {p2} | draw two {plural}, one {p1} and one {p2}
two {plural}, one {p1} and one {p2}
the artist draws two {plural}, one {p1} and the other {p2} | two {plural} come into view, one {p1}, one {p2}
{p1} there is one of two {plural}, and {p2} the other | of two {plural} one is {p1} and the second one {p2}
two {plural} have been put here, this one {p1}, that one {p2} | twins: two {plural}, one {p1}, one {p2}
we notice two {plural}, one of them {p1}, the other one {p2} | there lie two {plural}, one {p1} and one {p2}
show two {plural}, the first {p1}, the other {p2}
two {plural} <live/camp/relax/doze/land/stop/hide/play/wait/stay/are> here<,/:> <one/the first/the left one> {p1} \
<and/,> <one/the other/the second/another> {p2}
<we/they/the children/some people> <meet/come across/greet/admire/find> two {plural}<,/:> <one/the first> {p1} and \
<one/another/the other> {p2}
<make/create/include/imagine/sketch/place/set> two {plural}, <one/the first> {p1} and <one/the other/the second> {p2}
{p1} <stands/sits/is/waits/lies> <one/the first> of two {plural}, <the other/the second/its brother> <stands/sits/\
is/waits/lies> {p2}
<someone/a child/the teacher> <leaves/drops/draws/sketches/places> two {plural}<,/:> <one/the first> {p1} and <one/\
the other> {p2}
<it takes two/double fun/two of a kind>: {plural} {p1} and {p2} | there are {plural} {p1} and {p2}, <two of them/so \
two in all>
a pair of {plural} <is/waits/stays/sits/stands> here, <one/the first> {p1} and <one/the second> {p2}
"""

ALIAS_ALONE = """
this is {alias} | meet {alias} | here is {alias} | look, this is {alias} | this picture shows {alias}
here you can see {alias} | let me show you {alias} | I want you to meet {alias}
I would like to show you {alias} | may I present {alias} | say hello to {alias}
this is what {alias} looks like | you see {alias} here | the picture shows {alias}
in this picture you see {alias} | here comes {alias} | that is {alias} | this one is {alias}
I brought a picture of {alias} | I took a picture of {alias} | have a look at {alias} | have you met {alias}
do you know {alias} | come and see {alias} | our hero is {alias}
<meet/greet/see/look at/watch/admire/this must be/I give you> {alias}<, here in the picture/ here/ now/>
<the picture/this drawing/this image/the first page/my drawing> <has/is of/is about/features/brings> {alias}
<you should/you must/you have to/you can> <meet/see/greet/get to know> {alias}
{alias} <is the one you see/can be seen here/looks like this/is in this picture/greets you/smiles at you>
"""

ALIAS_JOINS = """
{alias} has come too, as you see | look who joins in: {alias} | somebody new is here: {alias}
here comes someone new: {alias} | there is someone new, and that is {alias} | you can see {alias} as well now
{alias} joins the scene | {alias} is here too | {alias} has just arrived | now {alias} is here as well
then comes {alias} | someone else arrives: {alias} | do you see who came along, {alias}
see who is there now: {alias} | can you spot {alias} in the picture | the new one in the picture is {alias}
one more is here: {alias} | we welcome {alias} | {alias} comes along | {alias} comes to visit
{alias} turns up in the picture | guess who came: {alias} | somebody else turned up: {alias}
the one who just came is {alias} | they are joined by {alias}
<now/this time/later/today/suddenly> {alias} <is there too/can be seen as well/comes by/stops by/walks in/visits/\
appears in the picture>
<look/see/oh/hey/wow/listen>, <there is/here is/I see/that must be> {alias}, <new in the picture/and it was not \
there before/come to visit>
<someone/one more/a new one> <has arrived/walks in/comes along/stops by>: {alias}
<they/we/the others> <greet/meet/invite/call/bring along> {alias}<, as you see/, look/>
<the picture/this drawing/this image/the next page> <has/shows/adds/brings> {alias} <too/as well/now>
"""

DISTRACTOR = """
everyone is happy | nobody says a word | it is a lovely time | the air is fresh | someone hums a song
that takes a while | nothing else happens | all the others stay where they are | everything else stays the same
they have a good time | what a surprise | that makes everyone laugh | it is very quiet | time goes by
they think about lunch | it is Tuesday | the music plays on | a cool breeze blows | they tell each other jokes
everybody is tired | no one knows why | somebody laughs out loud | that was to be expected
they dream of {absent} | they would love to have {absent} | there is no sign of {absent}
nobody has seen {absent} | yesterday they heard about {absent} | they talk about {absent} for a while
this has nothing to do with {absent}
<they/all of them/the children/some people/the neighbours> <wish for/ask for/look for/wait for/long for/write about/\
sing about/read about/forget about/laugh about/think of/argue about> {absent}
<nobody/no one/none of them/hardly anyone> <has/owns/brought/wants/bought/mentions/remembers/needs/knows/has met/\
draws> {absent}
<it is a pity/too bad/everyone knows/it is true/some say/it seems> that <nobody has/there is no place for/nobody \
brought/they never had> {absent}
{absent} <would be nice/is not here/was not invited/is far away/could not come/is missing here/stayed at home/is \
only a dream/did not come>
<without/instead of/except for/apart from> {absent} <it is fine too/everything is there/they have other things/life \
goes on>
<a song/a book/a letter/a joke/a film/a riddle> about {absent} <is known to all/comes to mind/makes them laugh/is \
what they like>
<yesterday/last year/once/long ago/next week/tomorrow> <they had/they saw/someone sold/they will buy/someone may \
bring> {absent}
<the air/the day/the mood/the weather/the light> is <good/fine/warm/cool/lovely/strange/bright/calm/quiet>
<someone/everyone/nobody/a child/the teacher> <laughs/sings/yawns/sneezes/claps/dances/sleeps/talks/waits/smiles/\
shouts/counts to ten>
it is <Monday/Friday/noon/late/early/five o'clock/a holiday/almost time/time for tea/windy/quiet/fun>
<that/this/all of it> <was easy/is fun/takes an hour/was a good idea/makes sense/is strange/happens every day/is \
enough>
"""

#: Words that may stand before a sentence; those of the two splits differ.
CONNECTORS = """
then | now | next | after that | a little later | suddenly | and then | soon | at last | in the end
after a while
<some time later/at once/right away/in no time/a moment after/one minute on/the next day/by and by/finally/later on/\
hours later/out of the blue/without warning/as time goes by/at that moment/as a result>
"""
