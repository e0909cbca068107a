"""Numbers that have a least value, refused by the key under which a user set them."""


def at_least(least: float, under: str, **settings: float) -> None:
    """Raises ValueError for the first of `settings` below `least` (or not a number), which is
    called `under` and its name: `at_least(1, "data.attack", steps=0)` says `data.attack.steps`."""
    for name, given in settings.items():
        if not given >= least:
            raise ValueError(f"{under}.{name} is {given}; it must be at least {least}.")
