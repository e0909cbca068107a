"""Pages of results, rendered from the rows that are kept beside the recipes.

`suite.py` answers a template's questions from rows, `pages.py` fills the templates,
`leaderboard.py` ranks on a page of its own. A page is made
by `shortcut-lightning results` alone; a test fails where a page says other than its rows.
"""
