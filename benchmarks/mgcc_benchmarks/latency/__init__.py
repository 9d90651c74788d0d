"""How long a request takes through the runtime: measured by the runtime itself, kept with its machine, drawn."""
