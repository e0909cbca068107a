"""Is this protection worth anything? One question, asked of a matrix of ordinary runs.

`recipe.py` reads what was asked for, `photographs.py` makes the copies once, `routes.py` says what
may happen to them and writes the matrix that `bench` runs, `effects.py` compares, `page.py` shows.
"""
