"""geopix: models that talk about an overhead image and draw on it, composed from interchangeable parts."""

__version__ = "0.1.0"
