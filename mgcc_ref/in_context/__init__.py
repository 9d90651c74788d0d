"""The paper's grounding: the language model writes the layout in context, constrained by a grammar."""
