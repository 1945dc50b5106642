"""Notes and tokens: NumPy, never torch."""
