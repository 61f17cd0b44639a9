"""Dialogues as token ids and back, by any tokenizer and any chat template that only ever appends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from geopix.types import SEG, Turn

IMAGE = "<image>"
DEFAULT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ASSISTANT: ' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
"""For tokenizers without a template: ``USER: prompt ASSISTANT: answer</s>``, the layout of Vicuna."""

_CACHE = 50_000
_INERT = re.compile("\ue002(.+?)\ue003", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """The template's own text around one turn.

    Args:
        before: what stands before the prompt, from the end of the turn before.
        between: what stands between prompt and answer.
        gap: white space that belongs to the answer, since the generation prompt stops short of it.
        end: what ends the answer, with the end-of-turn token as its last.
    """

    before: str
    between: str
    gap: str
    end: str


class Chat:
    """A tokenizer with its chat template, the image's placeholder and the tokens of one ``[SEG]``.

    Special tokens are added to the tokenizer that is given. Text of prompts and answers that merely looks like a special token is spelled
    out sign by sign and never becomes one.

    Args:
        tokenizer: any; gets ``<image>`` and ``[SEG0]`` ... as special tokens where it lacks them.
        seg_tokens: how many tokens one ``[SEG]`` becomes.
        system: the system message; empty for none, or for the template's own.
        template: Jinja chat template in place of the tokenizer's own.

    Attributes:
        seg_ids: ids of ``[SEG0]`` ..., in order.
        image_id: id of ``<image>``.
        pad_id: id that fills up the batch.
        stop_ids: ids that end an answer.

    Raises:
        ValueError: when a token is not usable, or the template rewrites earlier turns or never ends an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, seg_tokens: int, system: str = "", template: str | None = None) -> None:
        if seg_tokens < 1:
            raise ValueError(f"seg_tokens: found {seg_tokens}, expected at least 1: one {SEG} becomes that many tokens.")
        self.tokenizer, self.system = tokenizer, system
        self.template = template or tokenizer.chat_template or DEFAULT_TEMPLATE
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            tokenizer.backend_tokenizer.no_truncation()
            tokenizer.backend_tokenizer.no_padding()
        names = [f"[SEG{index}]" for index in range(seg_tokens)]
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in [IMAGE, *names]], special_tokens=True)
        specials = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | set(tokenizer.all_special_tokens)
        self._special = re.compile("|".join(re.escape(text) for text in sorted(specials, key=len, reverse=True)))
        self._mask = re.compile(f"{self._special.pattern}|[\ue000-\ue003]")
        self._cache: dict[tuple[str, bool], tuple[int, ...]] = {}
        self._layouts: dict[int, tuple[Layout, ...]] = {}
        self.image_id, *seg_ids = self._look_up([IMAGE, *names])
        self.seg_ids = tuple(seg_ids)
        self.special_ids = frozenset(self._look_up(sorted(specials)))
        self._check_tokens([IMAGE, *names], [self.image_id, *seg_ids])
        self._seg_text = "".join(names)
        end = self.layouts(2)[-1].end
        self.stop_ids = frozenset(index for index in (self.encode(end)[-1], tokenizer.eos_token_id) if index is not None)
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.stop_ids)

    @property
    def num_tokens(self) -> int:
        """Rows that the embedding needs at least: one more than the highest id."""
        return max(self.tokenizer.get_vocab().values()) + 1

    def ids(self, turns: Sequence[Turn], num_visual: int, *, ask: bool) -> tuple[list[int], list[int]]:
        """Ids and labels of one dialogue. The image's placeholders and a line break stand at the front of the first prompt."""
        ids: list[int] = []
        labels: list[int] = []
        for index, (turn, layout) in enumerate(zip(turns, self.layouts(len(turns)), strict=True)):
            if not ask and not turn.answer.strip():
                raise ValueError(f"turn {index} has no supervised token, since its answer is empty; prompt {turn.prompt!r}. Give an answer, or ask for it.")
            image = f"{IMAGE}\n" if index == 0 and num_visual else ""
            for token in self.encode(layout.before + image + self._inert(turn.prompt) + layout.between, first=index == 0):
                ids.extend([token] * num_visual if token == self.image_id else [token])
            labels.extend([-100] * (len(ids) - len(labels)))
            if ask and index == len(turns) - 1:
                break
            answer = self._inert(turn.answer).replace(SEG, self._seg_text)
            ids.extend(self.encode(layout.gap + answer + layout.end))
            labels.extend(ids[len(labels) :])
        return ids, labels

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the end of the answer. A complete run of ``seg_ids`` reads ``[SEG]``; other special tokens are not shown."""
        text: list[str] = [""]
        chunk: list[int] = []
        index = 0
        while index < len(ids) and ids[index] not in self.stop_ids:
            if tuple(ids[index : index + len(self.seg_ids)]) == self.seg_ids:
                text += [self._plain(chunk, first=len(text) == 1), SEG]
                chunk, index = [], index + len(self.seg_ids)
                continue
            if ids[index] not in self.special_ids:
                chunk.append(ids[index])
            index += 1
        return "".join([*text, self._plain(chunk, first=len(text) == 1)]).strip()

    def encode(self, text: str, *, first: bool = False) -> tuple[int, ...]:
        """Ids of one piece; unless it is the first, as tokens that follow others (some tokenizers put a space before a beginning)."""
        key = (text, first)
        if key not in self._cache:
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            ids: list[int] = []
            for index, part in enumerate(_INERT.split(text)):
                for piece in part if index % 2 else [part] if part else []:
                    ids.extend(self._raw(piece) if first and not ids else self._raw(IMAGE + piece)[1:])
            self._cache[key] = tuple(ids)
        return self._cache[key]

    def layouts(self, count: int) -> tuple[Layout, ...]:
        """The template's text around each of ``count`` turns, found by rendering stand-ins for prompts and answers."""
        if count in self._layouts:
            return self._layouts[count]
        done, rest, found = "", "", []
        for turn in range(1, count + 1):
            prompt, answer = f"\ue000{turn - 1}\ue001", f"\ue001{turn - 1}\ue000"
            asked, full = self._render(turn, ask=True), self._render(turn, ask=False)
            if not (asked.startswith(done) and full.startswith(done)):
                raise ValueError(f"chat template: it rewrites earlier turns: {done!r} became {full[: len(done)]!r} when a turn was added. Give the "
                                 "language model a template that only appends (template: a Jinja string).")
            before, _, start = asked[len(done) :].partition(prompt)
            before_full, _, tail = full[len(done) :].partition(prompt)
            between, split, end = tail.partition(answer)
            if not split or before != before_full or not between.startswith(start):
                raise ValueError(f"chat template: a question reads {asked!r} alone but {full!r} with its answer, so a prompt would depend on its "
                                 "answer. Give the language model a template that only appends (template: a Jinja string).")
            stop = self._special.search(end)
            if stop is None:
                raise ValueError(f"chat template: no special token ends an answer; found {end!r} after it, so the model could not learn to stop. "
                                 "End each answer of the template with eos_token.")
            lead = between[len(start) :]
            gap = lead[len(lead.rstrip()) :]
            found.append(Layout(rest + before, between[: len(between) - len(gap)], gap, end[: stop.end()]))
            done, rest = full, end[stop.end() :]
        self._layouts[count] = tuple(found)
        return self._layouts[count]

    def _render(self, count: int, *, ask: bool) -> str:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in range(count):
            messages += [{"role": "user", "content": f"\ue000{turn}\ue001"}, {"role": "assistant", "content": f"\ue001{turn}\ue000"}]
        try:
            return str(self.tokenizer.apply_chat_template(
                messages[:-1] if ask else messages, chat_template=self.template, tokenize=False, add_generation_prompt=ask))
        except TemplateError as error:
            raise ValueError(f"chat template: it refuses {'a system message and ' if self.system else ''}{count} turn(s): {error}. "
                             "Leave system empty, or give the language model another template.") from error

    def _inert(self, text: str) -> str:
        """White space at both ends is dropped, as chat templates do; what looks like a special token is marked to be spelled out."""
        return self._mask.sub(lambda match: f"\ue002{match.group()}\ue003", text.strip())

    def _look_up(self, tokens: list[str]) -> list[int]:
        found = self.tokenizer.convert_tokens_to_ids(tokens)
        return found if isinstance(found, list) else [found]

    def _raw(self, text: str) -> list[int]:
        if isinstance(self.tokenizer, PreTrainedTokenizerFast):
            return list(self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)  # a tenth of the time of the call below
        return list(self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])

    def _plain(self, ids: list[int], *, first: bool) -> str:
        """Text of ordinary ids, with the space between them and a ``[SEG]`` before; spelled-out text never reads ``[SEG]``."""
        shown = ids if first else [self.seg_ids[0], *ids]
        text = str(self.tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return (text if first else text.removeprefix("[SEG0]")).replace(SEG, "(SEG)")

    def _check_tokens(self, names: list[str], ids: list[int]) -> None:
        for name, index in zip(names, ids, strict=True):
            seen = self._raw(f"it is {name}, and")
            if index is None or index == self.tokenizer.unk_token_id or seen.count(index) != 1 or ids.count(index) != 1 or not 0 <= index < self.num_tokens:
                raise ValueError(
                    f"token {name} is not usable with {type(self.tokenizer).__name__}: found id {index} of {self.num_tokens}, and {seen} for a sentence "
                    "that holds it; expected one id of its own. Use another tokenizer, or remove the clash from this one."
                )
