"""Tokens and image cells that read each other in turn: the two-way transformer of Segment Anything, and the layers around it.

Everything works with channels last, so that a cell is a token and a 2x2 transposed convolution is one matrix product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Projections(nn.Module):
    """The four projections of multi-head attention. Keys carry no bias: it adds the same to all scores of a query, which softmax ignores.

    Args:
        dim: width of tokens and cells.
        heads: how many; they share ``width`` evenly.
        width: inner width of queries, keys and values together.
    """

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"attention of width {width} cannot be split evenly over {heads} heads; choose heads that divide {width}.")
        self.heads = heads
        self.head_dim = width // heads
        self.q_proj = nn.Linear(dim, width)
        self.k_proj = nn.Linear(dim, width, bias=False)
        self.v_proj = nn.Linear(dim, width)
        self.out_proj = nn.Linear(width, dim)

    def _split(self, x: Float[Tensor, "m t _"]) -> Float[Tensor, "m t heads _"]:
        return x.unflatten(-1, (self.heads, self.head_dim))


class SelfAttention(Projections):
    """Plain attention among a few tokens."""

    def forward(self, queries: Float[Tensor, "m t d"], values: Float[Tensor, "m t d"]) -> Float[Tensor, "m t d"]:
        """Attention with ``queries`` as queries and keys."""
        q, k, v = (self._split(x).transpose(1, 2) for x in (self.q_proj(queries), self.k_proj(queries), self.v_proj(values)))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TokensReadImage(Projections):
    """Few tokens attend to many cells.

    The key and value projections are moved to the token side (``q.(W x) = (W' q).x``): the cells themselves are never projected,
    which for six tokens is a third of the arithmetic and of the memory.
    """

    def forward(self, tokens: Float[Tensor, "m t d"], placed: Float[Tensor, "m n d"], cells: Float[Tensor, "m n d"]) -> Float[Tensor, "m t d"]:
        """What the tokens read; ``placed`` are the cells with their position code."""
        num_tokens, dim = tokens.shape[1:]
        key = self.k_proj.weight.view(self.heads, self.head_dim, dim)
        value = self.v_proj.weight.view(self.heads, self.head_dim, dim)
        queries = torch.einsum("mthe,hed->mhtd", self._split(self.q_proj(tokens)) * self.head_dim**-0.5, key).flatten(1, 2)
        # Plain products: with so few queries the scores are small, and on CPUs the fused kernel's backward is slower.
        read = torch.bmm(torch.bmm(queries, placed.transpose(1, 2)).softmax(-1), cells)
        read = torch.einsum("mhtd,hed->mthe", read.view(-1, self.heads, num_tokens, dim), value).flatten(2)
        return self.out_proj(read + self.v_proj.bias)


class ImageReadsTokens(Projections):
    """Many cells attend to few tokens; query and output projections are moved to the token side, as in :class:`TokensReadImage`."""

    def forward(self, placed: Float[Tensor, "m n d"], keys: Float[Tensor, "m t d"], values: Float[Tensor, "m t d"]) -> Float[Tensor, "m n d"]:
        """What the cells read from the tokens."""
        num_tokens, dim = keys.shape[1:]
        k = self._split(self.k_proj(keys)) * self.head_dim**-0.5
        v = self._split(self.v_proj(values))
        query = self.q_proj.weight.view(self.heads, self.head_dim, dim)
        out = self.out_proj.weight.view(dim, self.heads, self.head_dim)
        folded_keys = torch.einsum("mthe,hed->mhtd", k, query).flatten(1, 2)
        offset = torch.einsum("mthe,he->mht", k, self.q_proj.bias.view(self.heads, self.head_dim)).flatten(1)
        folded_values = torch.einsum("mthe,dhe->mhtd", v, out).flatten(1, 2)
        # Cells last: a softmax over six neighbours in memory is slow, over six rows it is not.
        scores = torch.bmm(folded_keys, placed.transpose(1, 2)) + offset[..., None]
        weights = scores.unflatten(1, (self.heads, num_tokens)).softmax(2).flatten(1, 2)
        return torch.baddbmm(self.out_proj.bias.to(weights.dtype), weights.transpose(1, 2), folded_values)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP; then the image attends to the tokens. Norms follow each residual.

    Args:
        first: leave out the position code and the residual of the self-attention, as Segment Anything's first block does.
    """

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attention = SelfAttention(dim, heads, dim)
        self.norm_self = nn.LayerNorm(dim)
        self.read = TokensReadImage(dim, heads, dim // 2)
        self.norm_read = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, dim))
        self.norm_mlp = nn.LayerNorm(dim)
        self.write = ImageReadsTokens(dim, heads, dim // 2)
        self.norm_write = nn.LayerNorm(dim)

    def forward(
        self, tokens: Float[Tensor, "m t d"], cells: Float[Tensor, "m n d"], token_code: Float[Tensor, "m t d"], cell_code: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "m t d"], Float[Tensor, "m n d"]]:
        """Tokens and cells after one exchange."""
        tokens = self.self_attention(tokens, tokens) if self.first else tokens + self.self_attention(tokens + token_code, tokens)
        tokens = self.norm_self(tokens)
        placed = cells + cell_code.to(cells.dtype)
        tokens = self.norm_read(tokens + self.read(tokens + token_code, placed, cells))
        tokens = self.norm_mlp(tokens + self.mlp(tokens))
        cells = self.norm_write(cells + self.write(placed, tokens + token_code, tokens))
        return tokens, cells


class TwoWayTransformer(nn.Module):
    """Segment Anything's decoder transformer (Kirillov et al. 2023, arXiv 2304.02643): cross-attention works at half width.

    Args:
        dim: width of tokens and cells.
        depth: number of blocks.
        heads: attention heads.
        mlp_dim: hidden width of the tokens' MLP.
    """

    def __init__(self, dim: int, *, depth: int = 2, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=index == 0) for index in range(depth))
        self.read = TokensReadImage(dim, heads, dim // 2)
        self.norm_read = nn.LayerNorm(dim)

    def forward(
        self, tokens: Float[Tensor, "m t d"], cells: Float[Tensor, "m n d"], cell_code: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "m t d"], Float[Tensor, "m n d"]]:
        """Tokens and cells after all exchanges; the first tokens serve as the tokens' position code throughout."""
        token_code = tokens
        for block in self.blocks:
            tokens, cells = block(tokens, cells, token_code, cell_code)
        read = self.read(tokens + token_code, cells + cell_code.to(cells.dtype), cells)
        return self.norm_read(tokens + read), cells


class FourierPosition(nn.Module):
    """Position code of a grid from a random Gaussian matrix, kept as a buffer (Tancik et al. 2020, as in Segment Anything).

    Args:
        dim: width of the code; even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"a position code holds sines and cosines and needs an even width; found {dim}.")
        self.register_buffer("gaussian", torch.randn(2, dim // 2))
        self.gaussian: Tensor

    def forward(self, rows: int, columns: int) -> Float[Tensor, "n d"]:
        """Codes of all cells, row by row."""
        x, y = ((torch.arange(size, device=self.gaussian.device) + 0.5) * (2 / size) - 1 for size in (columns, rows))
        angle = 2 * math.pi * (x[None, :, None] * self.gaussian[0] + y[:, None, None] * self.gaussian[1])
        return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(0, 1)


class Upscale(nn.Module):
    """A 2x2 transposed convolution of stride 2, LayerNorm over channels (eps 1e-6) and exact GELU, with channels last."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        convolution = nn.ConvTranspose2d(in_dim, out_dim, 2, stride=2)
        assert convolution.bias is not None
        self.weight, self.bias = convolution.weight, convolution.bias
        self.norm = nn.LayerNorm(out_dim, eps=1e-6)

    def forward(self, cells: Float[Tensor, "m h w c"], skip: Float[Tensor, "m h w 4 e"] | None = None) -> Float[Tensor, "m h w 4 e"]:
        """The four new cells of each cell: upper left, upper right, lower left, lower right; ``skip`` is added to them before the norm."""
        new = _four_cells(cells, self.weight, self.bias)
        return F.gelu(self.norm(new if skip is None else new + skip))

    def project(self, cells: Float[Tensor, "m h w c"], vectors: Float[Tensor, "m e"]) -> Float[Tensor, "m h w 4"]:
        """Dot products of the new cells with one vector per row, the same as ``(self(cells) * vectors).sum(-1)``.

        With cells last the norm over few channels is several times as fast; centred weights take its mean out beforehand.
        """
        weight = self.weight - self.weight.mean(1, keepdim=True)
        bias = (self.bias - self.bias.mean()).repeat(4)[:, None]
        new = (weight.permute(2, 3, 1, 0).flatten(0, 2) @ cells.flatten(1, 2).transpose(1, 2)).add(bias).unflatten(1, (4, -1))
        new = new * torch.rsqrt(new.square().mean(2, keepdim=True) + self.norm.eps)
        new = F.gelu(torch.addcmul(self.norm.bias.to(new.dtype)[:, None], new, self.norm.weight.to(new.dtype)[:, None]))
        return (vectors[:, None, None] @ new).squeeze(2).transpose(1, 2).unflatten(1, cells.shape[1:3])


class UpscaledProducts(nn.Module):
    """Segment Anything's last step: a 2x2 transposed convolution of stride 2 with exact GELU and no norm, and dot products of each new cell with vectors."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        convolution = nn.ConvTranspose2d(in_dim, out_dim, 2, stride=2)
        assert convolution.bias is not None
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(
        self, cells: Float[Tensor, "m h w c"], vectors: Float[Tensor, "m o e"], skip: Float[Tensor, "m h w 4 e"] | None = None
    ) -> Float[Tensor, "m o 2*h 2*w"]:
        """One map per vector; ``skip`` is added to the new cells before the GELU."""
        new = _four_cells(cells, self.weight, self.bias)
        new = F.gelu(new if skip is None else new + skip)
        products = new.flatten(1, 3) @ vectors.transpose(1, 2)
        return unfold_cells(products.unflatten(1, new.shape[1:4])).permute(0, 3, 1, 2)


def _four_cells(cells: Float[Tensor, "m h w c"], weight: Float[Tensor, "c e 2 2"], bias: Float[Tensor, " e"]) -> Float[Tensor, "m h w 4 e"]:
    """A 2x2 transposed convolution of stride 2 as one matrix product."""
    return F.linear(cells, weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)).unflatten(-1, (4, -1))


def unfold_cells(new: Float[Tensor, "m h w 4 *c"]) -> Float[Tensor, "m 2*h 2*w *c"]:
    """The grid of twice the size that the four new cells of each cell make up."""
    num, rows, columns = new.shape[:3]
    return new.unflatten(3, (2, 2)).transpose(2, 3).reshape(num, 2 * rows, 2 * columns, *new.shape[4:])


def fold_cells(fine: Float[Tensor, "b h w *c"]) -> Float[Tensor, "b h//2 w//2 4 *c"]:
    """The opposite of :func:`unfold_cells`: each 2x2 square of cells becomes one cell of four."""
    rows, columns = fine.shape[1:3]
    return fine.unflatten(2, (columns // 2, 2)).unflatten(1, (rows // 2, 2)).transpose(2, 3).flatten(3, 4)
