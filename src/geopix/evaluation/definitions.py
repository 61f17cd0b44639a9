"""What the scores of a result mean, in a sentence each: written beside them, so that a number can be read without this program."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from geopix.evaluation.protocols import Protocol

_FIXED = {
    "single/*": "masks of questions about one thing",
    "multi/*": "masks of questions that name several things, paired in the order of the question",
    "multi_matched/*": "the same masks, paired by the one-to-one assignment with the largest sum of IoUs; what is left over on either side counts 0",
    "group/*": "masks of questions about all things of a kind",
    "followup/*": "masks of second turns, which refer to the first",
    "grounded/*": "masks of described scenes, in the order of the true description",
    "segment/*": "masks of all questions that ask for any: single, multi, group, followup and grounded together",
    "boundary/*": "as segment, of the pixels within 2 % of the image's diagonal of an outline",
    "size/*": "masks by the area of the true thing: tiny below 144 pixels, small below 1024, medium below 9216, large beyond",
    "class/*": "masks by the class of the true thing",
    "absent/t_acc": "share of questions whose thing is there for which at least one pixel was drawn",
    "absent/n_acc": "share of questions whose thing is not there for which no pixel was drawn",
    "answers/no_seg": "share, of the answers that should have masks, without [SEG]",
    "answers/fewer": "share, of the answers that should have masks, with fewer [SEG] than asked for",
    "answers/more": "share, of the answers that should have masks, with more [SEG] than asked for",
    "answers/empty_mask": "share, of the answers that should have masks, with as many [SEG] as asked for but no mask that holds a pixel",
    "answers/as_asked": "share, of the answers that should have masks, with as many [SEG] as asked for and a mask that holds a pixel",
    "false_premise/rate": "share of questions about what is not there whose answer draws something or begins with yes; 0 is best",
    "grounded_conversation/*": "masks of described scenes assigned to the true ones; what was missed counts 0",
    "box/*": "boxes in text, paired in order; a missing or malformed box has IoU 0",
    "*/acc@*": "share of boxes whose IoU is at least the threshold",
    "*/mean_iou": "mean IoU of the boxes",
    "vqa/*": "share of right short answers of a kind: equal to the true answer",
    "vqa/oa": "share of right short answers",
    "vqa/aa": "mean of the shares of the kinds that were asked",
    "vqa/*_majority": "share that always giving the commonest true answer of the kind would have",
    "caption/bleu_*": "corpus BLEU of descriptions, of n-grams up to this length",
    "caption/rouge_l": "mean ROUGE-L: F-measure of the longest common subsequence with the true descriptions",
    "caption/cider_d": "mean CIDEr-D, from 0 to 10; how rare a word is follows from this set's true descriptions",
    "caption/meteor": "METEOR of pycocoevalcap",
    "caption/spice": "SPICE of pycocoevalcap",
    "presence/*": "how well the stated probability that a thing is there fits: mean square error (brier), mean gap by bins (ece); 0 is best",
    "quality/*": "the IoU that the decoder expects of a mask against its true one: mean distance (mae), expected minus true (bias), Pearson's correlation",
    "control/shuffled_*": "single, asked about the next image of the batch: what words alone achieve",
    "control/class_union_*": "single, answered with everything of the asked thing's class",
    "*/count": "how many were scored; vqa/count alone is the share of right answers to counting questions",
    "*_num": "how many questions of that kind were scored",
    "*/num_*": "how many questions were scored, are about what is there or not, or do not count by the protocol",
}


def definitions(names: Iterable[str], rule: Protocol) -> dict[str, str]:
    """Definitions of the scores with these names, by patterns in which ``*`` stands for anything; in full they are in docs/metrics.md.

    Args:
        rule: by which they were made.
    """
    mean, cumulative = (rule.names.get(name, name) for name in ("giou", "ciou"))
    by_rule = {
        f"*/{mean}": f"mean over masks of the IoU of each; an empty mask against an empty truth is {rule.empty:g}",
        f"*/{cumulative}": "all intersections over all unions of the masks",
        "*/pr@*": f"share of masks whose IoU is {'above' if rule.strict else 'at least'} the threshold",
    }
    names = list(names)
    return {pattern: text for pattern, text in {**by_rule, **_FIXED}.items() if any(fnmatchcase(name, pattern) for name in names)}
