"""The rooms' halves in Python: they answer with plain data, from an `App`."""
