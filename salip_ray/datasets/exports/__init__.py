"""Labels in the forms that trainers read, one module a format.

Every export streams image by image, puts each file there whole, leaves out what is there already,
so that a stopped export goes on, and says in ``export.json`` what it was made of.
"""
