"""Attention of speech and music models, as their code spells it."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .layers import QKV, D, H, d, heads, linear, merge


class ConformerRelshift(QKV):

    def __init__(self):
        super().__init__()
        self.u = nn.Parameter(torch.randn(H, d))
        self.w = nn.Parameter(torch.randn(H, d))
        self.p = linear(bias=False)
        self.register_buffer("pe", torch.randn(1, 64, 32))

    def forward(self, x):
        B, N, C = x.shape
        q = self.q(x).view(B, -1, H, d)
        k = self.k(x).view(B, -1, H, d).transpose(1, 2)
        v = self.v(x).view(B, -1, H, d).transpose(1, 2)
        p = self.p(self.pe[:, :N]).view(1, -1, H, d).transpose(1, 2)
        ac = torch.matmul((q + self.u).transpose(1, 2), k.transpose(-2, -1))
        bd = torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1))
        z = torch.zeros((*bd.size()[:3], 1))
        xp = torch.cat([z, bd], -1).view(*bd.size()[:2], bd.size(3) + 1, bd.size(2))
        bd = xp[:, :, 1:].view_as(bd)
        a = F.softmax((ac + bd) / math.sqrt(d), -1)
        return self.o(torch.matmul(a, v).transpose(1, 2).contiguous().view(B, -1, H * d))


class ConformerRelshiftMasked(ConformerRelshift):
    """Conformer (ESPnet, NeMo): relative positions by padding and reshaping, the mask applied twice."""

    def forward(self, x, m):
        B, N, C = x.shape
        q = self.q(x).view(B, -1, H, d)
        k = self.k(x).view(B, -1, H, d).transpose(1, 2)
        v = self.v(x).view(B, -1, H, d).transpose(1, 2)
        p = self.p(self.pe[:, : 2 * N - 1]).view(1, -1, H, d).transpose(1, 2)
        ac = torch.matmul((q + self.u).transpose(1, 2), k.transpose(-2, -1))
        bd = torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1))
        z = torch.zeros((*bd.size()[:3], 1))
        xp = torch.cat([z, bd], -1).view(*bd.size()[:2], bd.size(3) + 1, bd.size(2))
        bd = xp[:, :, 1:].view_as(bd)[:, :, :, : bd.size(-1) // 2 + 1]
        sc = (ac + bd) / math.sqrt(d)
        mask = m.unsqueeze(1).eq(0)
        sc = sc.masked_fill(mask, torch.finfo(torch.float32).min)
        a = torch.softmax(sc, -1).masked_fill(mask, 0.0)
        return self.o(torch.matmul(a, v).transpose(1, 2).contiguous().view(B, -1, H * d))


class WhisperCachedCross(nn.Module):
    """Whisper decoder step: self attention with a cache, cross attention with stored keys."""

    def __init__(self):
        super().__init__()
        self.a = QKV()
        self.q = linear()
        self.o = linear()

    def forward(self, x, pk, pv, ck, cv):
        B = x.shape[0]
        q, k, v = self.a.qkv(x)
        k = torch.cat([pk, k], 2)
        v = torch.cat([pv, v], 2)
        sh = lambda t: t.reshape(B * H, -1, d)
        w = torch.bmm(sh(q * d ** (-0.5)), sh(k).transpose(1, 2))
        o = torch.bmm(F.softmax(w, -1), sh(v)).view(B, H, 1, d).transpose(1, 2).reshape(B, 1, D)
        x = x + self.a.o(o)
        q = heads(self.q(x) * d ** (-0.5))
        w = torch.bmm(sh(q), sh(ck).transpose(1, 2))
        o = torch.bmm(F.softmax(w, -1), sh(cv)).view(B, H, 1, d).transpose(1, 2).reshape(B, 1, D)
        return (self.o(o), k, v)


class WavlmGatedRelpos(QKV):
    """WavLM: a position bias gated by each query."""

    def __init__(self):
        super().__init__()
        self.g = linear(d, 8)
        self.c = nn.Parameter(torch.randn(1, H, 1, 1))
        self.e = nn.Embedding(32, H)

    def forward(self, x):
        q, k, v = self.qkv(x)
        N = x.shape[1]
        i = torch.arange(9)
        pb = self.e((i[None] - i[:, None] + 16).clamp(0, 31)).permute(2, 0, 1)[None]
        g = self.g(heads(x)).view(x.shape[0], H, N, 2, 4).sum(-1)
        ga, gb = torch.sigmoid(g).chunk(2, -1)
        go = ga * (gb * self.c - 1) + 2
        sc = q @ k.transpose(-1, -2) * d ** (-0.5) + go * pb
        return self.o(merge(F.softmax(sc, -1) @ v))


class MusicTransformerSkew(QKV):
    """Music Transformer: relative positions by skewing."""

    def __init__(self):
        super().__init__()
        self.E = nn.Parameter(torch.randn(9, d))

    def forward(self, x):
        q, k, v = self.qkv(x)
        QE = torch.einsum("bhld,md->bhlm", q, self.E)
        p = F.pad(QE, (1, 0))
        r = p.reshape(2, H, 10, 9)[:, :, 1:, :]
        sc = (q @ k.transpose(-1, -2) + r) / d**0.5
        m = torch.triu(torch.ones(9, 9), 1)
        sc = sc + m * -1000000000.0
        return self.o(merge(F.softmax(sc, -1) @ v))


class VitsRelativeAttention(QKV):
    """VITS: the weights meet the values and relative values."""

    def __init__(self):
        super().__init__()
        self.rk = nn.Parameter(torch.randn(1, 9, d))
        self.rv = nn.Parameter(torch.randn(1, 9, d))

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x)
        q, k, v = [t.reshape(B * H, -1, d) for t in (q * d ** (-0.5), k, v)]
        w = torch.bmm(q, k.transpose(1, 2))
        pad = max(N - 5, 0)
        rk = F.pad(self.rk, [0, 0, pad, pad])
        rl = torch.matmul(q, rk.transpose(-2, -1))
        l = rl.size(1)
        xx = F.pad(rl, [0, 1, 0, 0])
        xf = xx.view(B * H, l * 2 * l)
        xf = F.pad(xf, [0, l - 1, 0, 0])
        rb = xf.view(B * H, l + 1, 2 * l - 1)[:, :l, l - 1 :]
        w = w + rb
        p = F.softmax(w, -1)
        o = torch.bmm(p, v)
        xx = F.pad(p, [0, l - 1, 0, 0])
        xf = xx.view(B * H, l * l + l * (l - 1))
        xf = F.pad(xf, [l, 0, 0, 0])
        ab = xf.view(B * H, l, 2 * l)[:, :, 1:]
        rv = F.pad(self.rv, [0, 0, pad, pad])
        o = o + torch.matmul(ab, rv)
        return self.o(o.view(B, H, N, d).transpose(1, 2).reshape(B, N, D))
