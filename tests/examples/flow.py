"""One batch, step by step through the model, as docs/flow.md tells it. Runs as it stands; the tests run it."""

# --8<-- [start:collate]
import torch

from geopix.data.scenes import Scenes
from geopix.data.source import collate

scenes = Scenes("easy", "train", size=64, dialogues=3)
batch = collate([scenes.sample(0), scenes.sample(1)])

b, q, m = len(batch.images), len(batch.dialogues), len(batch.masks)
assert batch.images.shape == (2, 3, 64, 64)
assert batch.image_index.tolist() == [0, 0, 0, 1, 1, 1]  # " q": dialogue -> image
assert batch.masks.shape == (m, 64, 64)
assert batch.dialogue_index.shape == (m,)  # mask -> dialogue, ascending
assert sum(turn.answer.count("[SEG]") for turns in batch.dialogues for turn in turns) == m
# --8<-- [end:collate]

from tests import tiny

torch.manual_seed(0)
net = tiny.model()

# --8<-- [start:encode]
seen = net.encode(batch.images)  # once per image, whatever is asked about it
finest, last = seen.features  # 64 px at strides 4 and 8
assert finest.shape == (b, net.encoder.channels[0], 16, 16)
assert last.shape == (b, net.encoder.channels[1], 8, 8)
n, d = 8 * 8, net.llm.dim
assert seen.visual.shape == (b, n, d)  # the connector: one token per cell of the last map
# --8<-- [end:encode]

# --8<-- [start:read]
tokens = net.llm.tokenize(batch.dialogues, n)
s = tokens.ids.shape[1]
assert tokens.ids.shape == tokens.labels.shape == tokens.attend.shape == (q, s)
assert (tokens.ids == net.llm.image_id).sum(1).tolist() == [n] * q  # places for the visual tokens
embeds = net._embed(tokens, seen, batch.image_index)
hidden = net.llm(embeds, tokens.attend)
assert embeds.shape == hidden.shape == (q, s, d)
# --8<-- [end:read]

# --8<-- [start:gather]
from geopix.model import gather_seg

k = len(net.llm.seg_ids)  # 2 scales x 3 tokens
prompts, dialogue_index = gather_seg(tokens.ids[:, 1:], hidden, net.llm.seg_ids, net.own_state)
assert prompts.shape == (m, k, d)
assert torch.equal(dialogue_index, batch.dialogue_index)
# --8<-- [end:gather]

# --8<-- [start:draw]
class_ids = net._class_ids(batch.classes)  # -1 where the memory has no such name
drawing = net._draw(seen, prompts, dialogue_index, batch.image_index, torch.full_like(class_ids, -1))
assert drawing.mask_logits.shape == (m, 32, 32)  # the decoder's own resolution
assert [len(mask) for mask in drawing.auxiliary] == [m] * 4  # coarse and refined, of two levels
assert drawing.class_logits.shape == (m, len(net.classes))
# --8<-- [end:draw]

# --8<-- [start:losses]
from geopix.losses import LossWeights, loss_terms, weight_of

output = net(batch)  # all of the above; only answer positions reach the head
a = len(output.labels)
assert output.logits.shape[0] == a < q * s
terms = loss_terms(output, batch.masks)  # masks at the training size, 64 x 64
loss = sum(weight_of(name, LossWeights()) * total / count.clamp(min=1) for name, (total, count) in terms.items())
loss.backward()
# --8<-- [end:losses]

# --8<-- [start:generate]
net.eval()
seen = net.encode(batch.images)
asked = [[turn.prompt for turn in turns] for turns in batch.dialogues]
prediction = net.generate(seen, asked, batch.image_index, max_new_tokens=12)
assert len(prediction.answers) == q
assert prediction.drawing.mask_logits.shape[1:] == (32, 32)
# --8<-- [end:generate]

# --8<-- [start:score]
from geopix.evaluation.scores import Scores

batch = collate([scenes.sample(0, truth=True), scenes.sample(1, truth=True)])  # true masks at the images' own size
scores = Scores()
scores.update(batch, prediction)
assert all(value >= 0 for value in scores.compute().values())
# --8<-- [end:score]
