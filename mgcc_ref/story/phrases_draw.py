"""A dialogue's lines that ask for a picture, and lines that do not; the two splits share none.

One line each; a choice <such/like> this makes several of one. Slot: {a thing} "a fox".
"""

from mgcc_ref.story.phrases import Split

#: Asks for a picture.
DRAW = {
    Split.TRAIN: """
Draw it.
Please draw the scene.
Can you draw that for me?
Now draw what we have so far.
Draw the picture, please.
Show me.
Show me what it looks like.
Show me the scene now.
Could you show that?
Let me see it.
I want to see it.
I would like to see how that looks.
Paint it.
Please paint this for me.
Paint the whole scene.
Make a picture of it.
Make me an image of that.
Can I have a picture?
Give me a picture of all this.
Create an image.
Create a picture of the scene, please.
Sketch it for me.
Illustrate that.
What does it look like? Draw it.
Add {a thing} and draw it again.
Put {a thing} in and show me.
Draw {a thing} there as well.
Show it with {a thing} in it.
Now there is {a thing} too. Draw that.
That is all. You can draw now.
OK, time for the picture.
Go ahead and paint.
Now I want the picture.
A picture of this, please.
An image, please.
One drawing of all that, please.
I'd like a picture now.
I'd like you to paint this.
Would you draw this for us?
Would you paint it now?
Would you please show me the picture?
Could you draw the whole thing?
Could you make an image of the scene?
Could you create a picture for me?
Can you paint what I described?
Can you show us the result?
Can you put that into a picture?
Can we see it now?
May I see the picture?
May I have an image of that?
Let me have a look at the scene.
Let me look at what you have.
Let us have a picture of this.
Let's see the picture.
Let's see what that looks like.
Let me see the scene as it is now.
We want to see it drawn.
We would like to have a look.
I am ready to see it.
I am done, so show me the picture.
That was everything, so please draw.
That is the whole scene. Make the image.
Now you know all of it. Paint.
You know enough, draw it now.
Start drawing.
Start to paint, please.
Begin the picture now.
Time to see the scene.
Time to paint it.
Your turn: make a picture.
Your turn to draw.
Pick up your pencil and draw that.
Take your pencil, please.
Use your colours and make a picture of it.
Get it on paper for me.
Put it on paper.
Put all of this into an image.
Turn it into a picture, please.
Turn my words into a drawing.
Make a drawing from that.
Make it visible.
Make this a painting.
Do the picture now.
Do a sketch of that.
Generate an image.
Generate the picture of this scene.
Produce a picture, please.
Render it, please.
Visualise it for me.
Visualise the scene.
Display it.
Display what you have got.
Show us the scene, please.
Show it to me now.
Show the finished picture.
Show me the next picture.
Show me how it turned out so far.
Draw everything that I mentioned.
Draw it once more.
Draw it again, please.
Draw us a new version.
Draw now!
Another picture, please.
One more picture.
The next image, please.
Paint it again with {a thing}.
Add {a thing} to it, then show me.
Place {a thing} in it and paint it.
Please include {a thing} and draw.
And {a thing}. Now show me the result.
I forgot {a thing}. Draw it with that.
With {a thing}, please. Let me see.
Let me see it with {a thing}.
Make an image with {a thing} in it, please.
<Please/Now/So/OK, now/Right, now/Good, now> <draw/paint/sketch/show/make/create> <it/that/all this/the whole thing/\
the scene as told/a picture of it/everything so far><, please/ for me/ for us/ now/>.
<Can/Could/Would/Will> you <please/now/quickly/kindly/> <draw/paint/show/make/create/produce> <it/that/all this/me \
a picture/a picture of it/an image of it/us the scene><, please/ now/ for me/>?
<I want/I need/I would like/I wish/We want/We need/It is time> to <see it/see the scene/see a picture/look at the \
result/have it on paper/have it drawn><, please/ now/ at last/>.
<Let me/Let us/May I/Can I/Can we> <see/have/get/look at> <a drawing/the drawing/an image of all that/the painting/\
the outcome/your picture><, please/ now/ at last/>.
<That was all/That is everything/I have told you all/Nothing more to add/I am done/The story is complete>, <so/and \
now/now> <draw/paint/show me/let me see it/make the picture/go ahead>.
<Add/Put in/Include/Also take> {a thing}, <then/and then/and> <draw/paint/show me/make a new picture/let me see/do \
the picture again>.
<How/What> <does it/would it/might it> look<, show me/? Draw it/? Paint it/? I want to see/ in a picture>.
<A picture/An image/A drawing/A painting/A sketch> <of it/of all this/of the scene/of what I said/with all of that/\
for my wall>, <please/now/if you can/thanks>.
<Show/Give/Make/Draw/Paint> me <a picture/an image/a drawing/a painting/a sketch> <of it/of that/of all this/of the \
story/with {a thing}/now>.
""",
    Split.HELD_OUT: """
I'd love to look at it now.
Picture, please!
Would you sketch the scene for us?
Render the scene.
Turn this into an image.
Time to draw what I told you.
Let us see how it turned out.
Please make the drawing.
One more with {a thing} in it, and let me look at it.
Display the image now.
Can you illustrate what we said?
Get your brush and paint this.
""",
}

#: Asks for none.
TALK = {
    Split.TRAIN: """
Hello!
Thank you.
That is nice.
There is {a thing} as well.
I like {a thing}.
Is there {a thing}?
Do you know where it is?
What happens next?
Tell me a story about it.
Tell me more.
How many things are there?
What is your favourite thing here?
Wait a moment, there is more.
Let me think.
It is a quiet day.
What do you think about {a thing}?
Remember {a thing}, we need it later.
Why is it there?
Who lives here?
That is not what I meant.
I saw {a thing} yesterday.
Good, and now listen.
Say that again, please.
What colour is it?
Hi there.
Good morning.
Good evening, my friend.
How do you do?
I am fine, and you?
What is your name?
Where do you come from?
Thanks a lot.
Thank you, that helps.
You are welcome.
All right.
Fine by me.
OK, go on.
Please go on.
I see.
I understand.
Interesting.
That sounds good.
That sounds fun.
That is funny.
That makes me happy.
No, that is wrong.
Yes, that is right.
Maybe later.
Not now.
Let me tell you more first.
Let me add one more thing.
There is more to tell.
Something is missing yet.
One moment, please.
Just a moment.
Hold your horses.
And what comes then?
What did they do next?
What do they do there?
What is it called?
What are they doing?
Which one is the oldest?
Which of the things is smaller?
Who is the biggest one?
Who else is there?
When does it take place?
Where do they sleep?
Where did {a thing} come from?
How old is it?
How far is it?
How did that happen?
Can you explain that?
Can you tell me in one sentence what happens?
Could you repeat what I said?
Could you tell me a joke?
Could you say it in other words?
Describe it in a few words.
Describe {a thing} to me.
Tell me about {a thing}.
Tell it to my brother.
Have you seen {a thing} before?
Did you know that?
My brother has {a thing}.
My mother likes {a thing}.
My aunt gave me {a thing}.
We have {a thing} at home.
Then the rain came.
And then the night came.
Later the sun came up.
It was late in the evening.
They were all very tired.
Nobody was there any more.
There was {a thing} once.
Once there was {a thing} that could sing.
I bought {a thing} today.
I would not want {a thing}.
Do you like {a thing}?
Is that {a thing}?
A friend of mine lives there.
I have to think about that.
<I think/I believe/I hope/I know/They say/We say/He said> <it is late/that is true/it may rain/we have time/this is \
fun/all is well/you are right/that helps>.
<Why/When/How/Where> <did/does/will/can> <he/she/that/it/everyone> <go there/know that/come back/sleep/eat/start/end>?
<My/His/Her/Our> <friend/teacher/cousin/neighbour/father/daughter> <has/likes/found/lost/sold/wants/talks about> {a \
thing}.
<Tell me/Say/Explain/Repeat/Spell/Guess> <what happens then/why/who they are/how it ends/the name/something nice/\
that once more/what you know><, please/ now/>.
<Do/Did/Would/Could> <you/they/we> <know/like/meet/find/remember/want/hear> <him/her/that/{a thing}/it/the others>?
<Later/Then/Yesterday/One day/At night/In the morning> <they slept/it rained/he laughed/nothing happened/she sang/\
we left/all went home/somebody called>.
<There is/There was/I see/They have/We found/It has> {a thing} <there/too/on the way/in the garden/at home/in the \
story>.
<Wait/Stop/Listen/Hm/Oh/Well/Yes/No/Good>, <there is more/I am not done/let me think/I forgot something/that is odd/\
go on/one more thing/who is that>.
<Thanks/Great/Fine/Sorry/Hello/Goodbye/See you>, <my friend/that is all right/until tomorrow/I must go/how are you/\
nice to meet you/all good>.
""",
    Split.HELD_OUT: """
How are you today?
Could you describe that in one sentence?
Have you ever met {a thing}?
One thing is still missing.
My sister has {a thing}.
Which of them is bigger?
And then the sun went down.
What is the name of this place?
Sounds good to me.
Explain it to a child.
""",
}

#: Asks for none, though it speaks of pictures.
TRICKY = {
    Split.TRAIN: """
Do not draw yet.
Don't show me anything before I am done.
Did you like the last picture?
The last picture was lovely.
I can't draw at all.
Who painted this?
My friend draws all day.
No picture, please, just tell me.
What would be in the picture?
I have a picture of {a thing} at home.
Is drawing hard for you?
Wait with the painting.
I will tell you when to draw.
There is a painting of {a thing} on my wall.
No drawing yet, please.
No pictures today.
No painting, thank you.
Not a picture, only words, please.
Words are enough, I need no image.
Don't draw it, describe it.
Don't paint anything for now.
Do not make an image of that.
Stop, do not draw.
Please wait before you draw.
Wait, I am not ready for the picture.
Hold the picture until I am done.
You may draw later.
You can paint it tomorrow.
We will draw it another time.
First listen, then we draw.
Before you draw, let me add {a thing}.
That picture was beautiful.
That was a nice painting.
I loved the image that you made.
Your drawing was a bit dark.
The sketch made me smile.
The picture that you showed me was good.
How did you learn to draw?
How do you make your pictures?
How many pictures have you made?
How long did you need for the painting?
Do you like to paint?
Do you enjoy drawing?
Can you draw well?
Are you good at painting?
Is it a big picture?
Was it hard to paint {a thing}?
Who is the artist?
What is the title of the picture?
What is your favourite painting?
What colours do painters like?
My sister paints every Sunday.
My uncle sells paintings.
My grandfather drew {a thing} long ago.
He showed me a photo of {a thing}.
They showed us an old picture.
I saw a painting of {a thing} in a museum.
I once drew {a thing} myself.
I used to paint as a child.
I never could paint {a thing}.
I like pictures of animals.
I hang every picture on the wall.
A picture says more than words, people say.
Drawing is a nice hobby.
<Do not/Don't/Please do not/You must not/Never> <draw/paint/show/sketch> <it/that/this/anything/a picture/the \
scene> <yet/now/before I am done/today/until I say so/for me>.
<No/Not a/I want no/I need no/There is no need for a> <picture/image/drawing/painting/sketch><, please/, only words/\
, thank you/ now/ yet/, just answer>.
<Your/The last/That/The first/This> <picture/drawing/painting/image/sketch> <was good/was funny/looks nice/is too \
dark/pleased us/is on my wall/took long>.
<My/His/Her/Our> <friend/teacher/cousin/neighbour/father/daughter> <draws/paints/likes to paint/sells pictures/\
makes drawings/collects images> <well/a lot/at night/for money/of {a thing}/every day>.
<Who/When/Where/Why/How> <drew/painted> <this/that/it/the old picture/{a thing}>?
<Did/Do/Have> you <ever draw/like to draw/paint often/make many pictures/see the painting/drawn before/learn to \
paint><, tell me/ at school/ yourself/>?
<I/She/He/We> <saw/bought/lost/found/have/had> <a picture/a drawing/a painting/an image> of {a thing} <once/at home/\
in a shop/last year/in a book>.
<First/Before that/Before you draw/Later you paint, but first> <listen/tell me more/answer me/let me add {a thing}/\
wait/tell me why>.
<Drawing/Painting/Making pictures> is <hard/easy/fun/an art/not for me/what she does/slow work>.
""",
    Split.HELD_OUT: """
Hold on, no image for now.
She showed me a sketch of {a thing} once.
I never learned to paint.
That drawing made me laugh.
Only words this time, no picture.
How long does a picture take you?
""",
}
