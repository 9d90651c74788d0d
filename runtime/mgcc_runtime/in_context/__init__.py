"""The paper's grounder: the language model writes where things stand, after worked examples, held to token masks."""
