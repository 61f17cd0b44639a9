"""``geopix data build``: from instance masks to dialogues whose every description is proved to select exactly what it is about."""
