"""``geopix sweep``: the product of some options, each combination an ordinary training with its test, and one table of all of them."""
