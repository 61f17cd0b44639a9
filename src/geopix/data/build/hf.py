"""Rewording by language models and vision-language models of the transformers library, from a local folder or the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PROMPT = """Say this description of a thing in an aerial image in other words. Keep its class, and every attribute and relation exactly. Add nothing.
Begin with "the". Answer with the description alone.

Facts: {facts}
Description: {text}
In other words:"""


class LanguageModelRewriter:
    """A causal language model that words descriptions anew, greedily: the same input gives the same output on the same machine.

    The model is loaded when it is first used, so every worker process loads its own.

    Args:
        path: folder or hub name of the model and its tokenizer.
        prompt: what is said to it; holds ``{text}`` and ``{facts}``. A chat template of the tokenizer is applied around it.
        max_new_tokens: length of an answer.

    Raises:
        ValueError: when the prompt does not hold ``{text}``.
    """

    def __init__(self, path: str, prompt: str = PROMPT, max_new_tokens: int = 48) -> None:
        if "{text}" not in prompt:
            raise ValueError(f"a prompt for rewording holds {{text}} where the description goes, and {{facts}} if wanted; found {prompt[:80]!r}.")
        self.path, self.prompt, self.max_new_tokens = path, prompt, max_new_tokens
        self._loaded: tuple[PreTrainedTokenizerBase, PreTrainedModel] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "prompt": self.prompt, "max_new_tokens": self.max_new_tokens, "_loaded": None}

    def rewrite(self, text: str, facts: Mapping[str, Any]) -> str:
        """The first line that the model answers."""
        if self._loaded is None:
            self._loaded = AutoTokenizer.from_pretrained(self.path), AutoModelForCausalLM.from_pretrained(self.path).eval()
        tokenizer, model = self._loaded
        said = filled(self.prompt, text, facts)
        if tokenizer.chat_template:
            said = tokenizer.apply_chat_template([{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(said, return_tensors="pt", add_special_tokens=not tokenizer.chat_template).to(model.device)
        with torch.inference_mode():
            ids = model.generate(**tokens, do_sample=False, max_new_tokens=self.max_new_tokens, pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id)
        return first_line(tokenizer.decode(ids[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))


class VisionLanguageModelRewriter:
    """The same with a model that also sees the thing: a crop around its box, from the image file named in the facts.

    Args:
        path: folder or hub name of the model and its processor.
        prompt: what is said to it; holds ``{text}`` and ``{facts}``.
        max_new_tokens: length of an answer.
        margin: of the crop around the box, as a share of the box's sides.
    """

    def __init__(self, path: str, prompt: str = PROMPT, max_new_tokens: int = 48, margin: float = 0.5) -> None:
        self.path, self.prompt, self.max_new_tokens, self.margin = path, prompt, max_new_tokens, margin
        self._loaded: tuple[Any, PreTrainedModel] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "prompt": self.prompt, "max_new_tokens": self.max_new_tokens, "margin": self.margin, "_loaded": None}

    def rewrite(self, text: str, facts: Mapping[str, Any]) -> str:
        """The first line that the model answers."""
        if self._loaded is None:
            self._loaded = AutoProcessor.from_pretrained(self.path), AutoModelForImageTextToText.from_pretrained(self.path).eval()
        processor, model = self._loaded
        content = [{"type": "image", "image": self._crop(facts)}, {"type": "text", "text": filled(self.prompt, text, facts)}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        ).to(model.device)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        return first_line(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def _crop(self, facts: Mapping[str, Any]) -> Image.Image:
        x1, y1, x2, y2 = facts["box"]
        across, down = (x2 - x1) * self.margin, (y2 - y1) * self.margin
        with Image.open(Path(facts["image"])) as image:
            return image.convert("RGB").crop((max(x1 - across, 0), max(y1 - down, 0), min(x2 + across, image.width), min(y2 + down, image.height)))


def filled(prompt: str, text: str, facts: Mapping[str, Any]) -> str:
    """The prompt with a description and its facts."""
    shown = {name: facts[name] for name in ("expression", "colour", "box") if name in facts}
    return prompt.replace("{facts}", json.dumps(shown, ensure_ascii=False)).replace("{text}", text)


def first_line(answer: str) -> str:
    """What stands in the first line that is not empty."""
    return next((line.strip() for line in answer.splitlines() if line.strip()), "")
