"""The models that ship with the package, and everything that made them."""
