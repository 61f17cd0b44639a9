"""Rewording by a language model, behind one small interface, with a verifier that takes nothing on trust.

A reworded phrase is read back with the pipeline's own vocabulary and proved again: it is kept only when it still selects exactly the same thing among
all instances. A word that is not of the vocabulary could mean anything, so it is refused, as "not" and "except" are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from geopix.data.build.view import View
from geopix.data.build.words import Vocabulary


@runtime_checkable
class Rewriter(Protocol):
    """Says a phrase in other words."""

    def rewrite(self, text: str, facts: Mapping[str, Any]) -> str:
        """The phrase in other words; the same input must give the same output, or the set is not reproducible.

        Args:
            text: a phrase such as "the red ship on the left".
            facts: what it rests on: ``expression``, ``type``, ``selects``, ``measured`` of the thing, and ``image``, the image's path.
        """


class Rewriting:
    """A rewriter and its verifier.

    Args:
        rewriter: what rewords.
        vocabulary: reads the result.
    """

    def __init__(self, rewriter: Rewriter, vocabulary: Vocabulary) -> None:
        self.rewriter = rewriter
        self.vocabulary = vocabulary

    def reword(self, view: View, text: str, wanted: int, facts: Mapping[str, Any]) -> tuple[str, str]:
        """The phrase in other words where they are proved, else as it was; and what became of it."""
        new = " ".join(self.rewriter.rewrite(text, facts).split()).strip(" .\"'")
        new = new.lower() if text == text.lower() else new
        if new == text:
            return text, "unchanged"
        if not new.lower().startswith("the "):
            return text, "refused: does not begin with 'the'"
        try:
            expression = self.vocabulary.parse(new)
        except ValueError as error:
            return text, "refused: not understood" if "vocabulary" in str(error) else "refused: contradicts itself or names no class"
        return (new, "kept") if view.proves(expression, wanted) else (text, "refused: selects something else")
