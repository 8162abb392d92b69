"""The models that ship with the package, and the phantoms that they are trained on."""
