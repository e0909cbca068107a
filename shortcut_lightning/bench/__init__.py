"""Many ordinary runs and one table: arms times subjects times seeds.

It knows command lines and reports, not models: `matrix.py` writes the command line of each cell,
`runner.py` has them run by whoever called it, `results.py` reads the reports, `tables.py` and
`page.py` write what came out.
"""

from shortcut_lightning.bench.matrix import Cell, Claim, Matrix

__all__ = ["Cell", "Claim", "Matrix"]
