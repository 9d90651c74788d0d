"""A whole set of weights from nothing: the order of the steps, and what each costs."""
