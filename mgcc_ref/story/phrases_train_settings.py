"""Templates of `phrases_train` about where a story is set and where it goes."""

OPENING = """
we are {setting} | it all begins {setting} | this story begins {setting} | the story takes place {setting}
this happens {setting} | we start {setting} | let us begin {setting} | here we are {setting}
imagine a scene {setting} | the scene is {setting} | everything starts {setting} | our story starts {setting}
our tale is set {setting} | we find ourselves {setting} | picture a scene {setting} | once upon a time {setting}
today we are {setting} | one day they meet {setting} | the friends are {setting} | they are {setting}
we spend the time {setting} | welcome to a story {setting} | the first scene is {setting}
our adventure begins {setting} | we have come together {setting} | {setting} | draw a scene {setting}
a picture {setting}
all have come together {setting} | the story that I tell plays {setting} | the page shows a place {setting}
think of a place {setting} | this is about a day {setting} | let me take you to a place {setting}
<our/this/the/my> <story/tale/adventure/day/trip/play/book/dream> <begins/starts/opens/happens/is set/takes place/\
plays> {setting}
<we/they/all of us/the friends/our heroes> <meet/arrive/wake up/live/play/wait/spend the day> {setting}
<imagine/picture/dream of/draw/sketch/make> <a day/a place/a scene/an afternoon/a picture> {setting}
<long ago/once/one day/this morning/in this story/on page one>, <all happened/they were/we were/everyone was/they \
met> {setting}
"""

TRAVEL = """
they travel and are now {setting} | now they are {setting} | the next scene is {setting}
later everyone meets {setting} | they all go on and end up {setting} | soon they are {setting}
they move on and are {setting} | the scene changes: they are {setting}
everything else stays, but now it is {setting} | they find themselves {setting}
the whole group is now {setting} | after a long trip they are {setting} | they wake up {setting}
they have gone on a trip and are {setting} | the story goes on {setting} | now everything happens {setting}
suddenly they are all {setting} | they decide to be {setting} | they take a trip and stay {setting}
we meet them again {setting} | the next day they are {setting} | the place changes and they are {setting}
some magic puts them {setting} | now we see them {setting} | we go on {setting} | draw it all {setting} now
change the background, they are {setting} | let them be {setting} now
they leave this place and come together {setting} | on the next page they are {setting}
the artist draws them all {setting} from now on | the trip brings all of them to a place {setting}
shortly after, the whole group is {setting} | it goes on in another place, {setting}
I would like to see all of it {setting}
<they/we/all of them/the friends/our heroes> <walk/drive/fly/sail/ride/run/wander/move/hike/sneak/march> <on/along/\
off/for hours/for days> <and arrive/and end up/until they are/and stop> {setting}
<later/some hours later/after lunch/the next morning/one page on>, <they are/everything is/all of them are/the \
story is> {setting}
<the story/the scene/the tale/the adventure> <moves/goes on/changes/continues>, <now it is/this time it is/and they \
are> {setting}
<the world/the place/the background> <changes/turns/is another one>: they are <now/suddenly/all> {setting}
<magic/a dream/a storm/a spell/the wind> <takes/carries/brings/sends> them to a <new/different/better> <place/spot> \
{setting}
<please put/put/draw/show/move> <them all/everything/the scene/all this> {setting}
"""

SETTING_SHOWN = """
look where they are now | they travel to the place that you see here
now they are somewhere else, as you can see | they go on a trip, see where | guess where they have gone
the picture shows where they are now | see where the trip has taken them | they have gone somewhere else, look
this is where they are now | they have moved on to this place | they went on, and here they are
do you see where they are now | the place is another one now | here they are, far from home
they have reached this place | this is the next stop of their trip | they woke up here
now it looks like this around them | you can see how the place has changed | everything around them has changed
<look at/see/watch/study> the <place/background/scene/picture>, <it has changed/that is new/they have moved on/it \
is another one>
<they/we/the friends/all of them> <walk/drive/fly/sail/ride/move> <on/along/off/for hours> and <arrive here/end up \
here/this is the place/you see where>
<the world/the place/the background> <has changed/is new/is another one/looks different now>, <look/as you see/see \
for yourself>
<where are they/where did they go/where is everyone>? <Look at the picture/The picture tells/You can see it>
"""

SPECIFIC_SETTINGS = {
    "meadow": """
green grass is all around | they come to a green meadow | now there is a meadow around them
<a green/a wide/a quiet/the big/a sunny> meadow <lies/opens/spreads/stretches/is> <around/before/behind/in front \
of> them<, now/>
<green grass/a green field/grass and flowers/green hills/rolling hills> <all around/everywhere/on every side/\
wherever they look><, that is the place now/>
<they/we/all of them/the friends> <reach/enter/find/come upon/step onto/run onto> <a green meadow/the green hills/\
the grass/a field of grass>
<the grass/the meadow/the green hill> is <all around/everywhere/behind them/where they are> <now/from now on/>
<the place turns into/now it is/this is/welcome to/they wake up in> a <green/wide/quiet> <meadow/field of grass>
""",
    "beach": """
they travel to the beach | they hear the waves on the beach | they go to the seaside
<a sandy/a long/a sunny/the/a wide> beach <lies/opens/spreads/stretches/is> <around/before/behind/in front of> \
them<, now/>
<sand and waves/the sea and its waves/yellow sand/blue water and sand> <all around/everywhere/on every side/\
wherever they look><, that is the place now/>
<they/we/all of them/the friends> <reach/find/come upon/step onto/run down to> <the beach/the sea/the shore/the \
sand of a beach>
<the sea/the beach/the sand> is <all around/everywhere/behind them/where they are> <now/from now on/>
<the place turns into/now it is/this is/welcome to/they wake up on> a <sandy/long/sunny> <beach/shore>
""",
    "night": """
night falls | it gets dark | it is night now | darkness comes | the day ends and night begins
<a dark/a black/a clear/the/a quiet> night <lies/falls/spreads/begins/is> <around/over/about/upon> them<, now/>
<darkness/a dark sky/a night sky/the dark> <all around/everywhere/on every side/wherever they look><, that is how \
it is now/>
<they/we/all of them/the friends> <wait for/walk into/stay up till/are out in/stand in> <the night/the dark/the \
dark night>
<the day/the light/daylight> <is over/ends/fades/goes out>, <night comes/it is dark/now it is night/and the night \
begins>
<the scene turns to/now it is/this is/welcome to/they wake up in the middle of> <the/a dark/a late/a quiet> <night/\
night time>
""",
    "snow": """
snow covers everything | it has snowed | everything is white with snow | winter comes with snow
<white/cold/fresh/thick/soft> snow <lies/falls/spreads/stretches/is> <around/before/behind/over> them<, now/>
<snow and ice/white mountains/a snowy land/winter and snow> <all around/everywhere/on every side/wherever they \
look><, that is the place now/>
<they/we/all of them/the friends> <reach/enter/find/come upon/step into/run into> <the snow/the snowy mountains/a \
white land/winter>
<the snow/the winter/the ice> is <all around/everywhere/behind them/where they are> <now/from now on/>
<the place turns into/now it is/this is/welcome to/they wake up in> a <snowy/white/cold> <land/winter land/place of \
snow>
""",
    "desert": """
they cross into the desert | hot dunes are all around now | they reach the dry desert
<a dry/a hot/a wide/the/an empty> desert <lies/opens/spreads/stretches/is> <around/before/behind/in front of> \
them<, now/>
<hot sand/dunes of sand/dry dunes/nothing but desert/heat and dunes> <all around/everywhere/on every side/wherever \
they look><, that is the place now/>
<they/we/all of them/the friends> <reach/enter/find/come upon/step into/ride into> <the desert/the hot dunes/a dry \
desert/a land of dunes>
<the desert/the dry sand/the dune> is <all around/everywhere/behind them/where they are> <now/from now on/>
<the place turns into/now it is/this is/welcome to/they wake up in> a <dry/hot/wide> <desert/land of dunes>
""",
    "room": """
they go indoors | they come into a room | now they are inside a room
<a warm/a quiet/a small/the/a bright> room <lies/opens/is> <around/before/behind/in front of> them<, now/>
<four walls/walls and a window/a floor and a window/a room with a window> <all around/on every side/wherever they \
look><, that is the place now/>
<they/we/all of them/the friends> <enter/find/step into/walk into/go into/run into> <a room/the room/a room with a \
window>
<they/we/all of them/the friends> <go/come/are/stay/meet/move/hurry> <indoors/inside> <now/from now on/together/>
<the place turns into/now it is/this is/welcome to/they wake up in> a <warm/quiet/small> <room/room with a window>
""",
}
