"""Turns of a dialogue that ask for a picture, and turns that do not: what `[IMG1]` has to tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgcc_ref.story.dialogues import make_dialogue
from mgcc_ref.story.phrases import NOUNS, Split, indefinite, pick

MAX_ROUNDS_BEFORE = 4
_TRICKY_CHANCE = 0.4  # of a turn that asks for none: it speaks of pictures all the same
_NEXT_ROUND_CHANCE = 0.35

_DRAW = {
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
_TALK = {
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
_TRICKY = {
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


@dataclass(frozen=True)
class DrawTurn:
    """A dialogue's texts; `draws` says whether the last one asks for a picture."""

    parts: tuple[str, ...]
    draws: bool


def make_draw_turn(rng: np.random.Generator, split: Split) -> DrawTurn:
    """Up to four rounds, then a turn that asks for a picture or, as often, one that does not."""
    dialogue = make_dialogue(rng, split)
    before = int(rng.integers(MAX_ROUNDS_BEFORE + 1))
    told, draws = dialogue.parts[:before], bool(rng.random() < 0.5)
    return DrawTurn((*told, _line(dialogue.parts[before], split, rng, draws=draws)), draws)


def _line(following: str, split: Split, rng: np.random.Generator, *, draws: bool) -> str:
    if draws:
        return _filled(_DRAW[split], rng)
    if rng.random() < _NEXT_ROUND_CHANCE:
        return following
    return _filled(_TRICKY[split] if rng.random() < _TRICKY_CHANCE else _TALK[split], rng)


def _filled(bank: str, rng: np.random.Generator) -> str:
    template = pick(tuple(line for line in bank.splitlines() if line), rng)
    noun = pick(NOUNS[pick(tuple(NOUNS), rng)], rng)
    return template.replace("{a thing}", indefinite(noun))
