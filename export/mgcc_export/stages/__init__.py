"""The stages of a model, one after another: what each is, its build, its cache and its golden data."""
