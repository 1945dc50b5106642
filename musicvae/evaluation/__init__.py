"""How good a model is, in figures: section 5 of the paper. Arrays of tokens in, named results out."""
