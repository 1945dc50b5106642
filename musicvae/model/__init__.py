"""Tensors: the model, its training and its files. Nothing here knows what a note is."""
