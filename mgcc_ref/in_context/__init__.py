"""The paper's grounding: the language model writes the layout in context, held to a grammar."""
