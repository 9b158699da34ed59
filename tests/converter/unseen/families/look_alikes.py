"""Sigmoid attention in rare spellings, and what resembles attention and is none."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .layers import QKV, D, H, d, linear, merge


class SigSoftplus(QKV):
    """Sigmoid attention as exp(-softplus(-x))."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        logits = q @ k.transpose(-1, -2) * d ** (-0.5) - 2.2
        return self.o(merge(torch.exp(-F.softplus(-logits)) @ v))


class SigLogsigmoid(QKV):
    """Sigmoid attention as exp(logsigmoid(x))."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        logits = q @ k.transpose(-1, -2) * d ** (-0.5) - 2.2
        return self.o(merge(F.logsigmoid(logits).exp() @ v))


class SigLenBiasRuntime(QKV):
    """Sigmoid attention with a bias of -log of the real tokens."""

    def forward(self, x, m):
        q, k, v = self.qkv(x)
        n = m.sum(-1)[:, None, None, None].float()
        sc = q @ k.transpose(-1, -2) * d ** (-0.5) - torch.log(n)
        sc = sc + (1 - m[:, None, None].float()) * -1000000000.0
        return self.o(merge(torch.sigmoid(sc) @ v))


class SigOneMinus(QKV):
    """Sigmoid attention as 1 - sigmoid(-x)."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        return self.o(merge((1 - torch.sigmoid(q @ k.transpose(-1, -2) * d ** (-0.5) + 2)) @ v))


class DanetCam(nn.Module):

    def __init__(self):
        super().__init__()
        self.c = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())

    def forward(self, x):
        x = self.c(x)
        m, C, h, w = x.shape
        q = x.view(m, C, -1)
        k = x.view(m, C, -1).permute(0, 2, 1)
        e = torch.bmm(q, k)
        en = torch.max(e, -1, keepdim=True)[0].expand_as(e) - e
        a = F.softmax(en, -1)
        v = x.view(m, C, -1)
        return torch.bmm(a, v).view(m, C, h, w) + x


class DanetCamMaxpool(DanetCam):
    """DANet: channel attention behind HardSwish and pooling."""

    def forward(self, x):
        x = F.max_pool2d(F.hardswish(self.c(x)), 2)
        m, C, h, w = x.shape
        q = x.view(m, C, -1)
        e = torch.bmm(q, q.permute(0, 2, 1))
        a = F.softmax(e, -1)
        return torch.bmm(a, q).view(m, C, h, w) + x


class RestormerMdta(nn.Module):
    """Restormer: transposed attention over channels."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv2d(32, 96, 1)
        self.dw = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.t = nn.Parameter(torch.ones(4, 1, 1))
        self.o = nn.Conv2d(32, 32, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.dw(self.qkv(x)).chunk(3, dim=1)
        r = lambda z: z.reshape(b, 4, c // 4, h * w)
        q, k, v = (r(q), r(k), r(v))
        q = F.normalize(q, dim=-1)
        k = F.normalize(k, dim=-1)
        a = q @ k.transpose(-2, -1) * self.t
        a = a.softmax(-1)
        return self.o((a @ v).reshape(b, c, h, w))


class CapsuleRouting(nn.Module):
    """Capsules: routing by agreement."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(10, 16, 8, 8))

    def forward(self, x):
        u = torch.einsum("bij,kijl->bkil", x, self.W)
        b = torch.zeros(2, 10, 16)
        for r in range(2):
            c = F.softmax(b, 1)
            v = torch.einsum("bki,bkil->bkl", c, u)
            v = v / (1 + v.norm(dim=-1, keepdim=True))
            b = b + torch.einsum("bkil,bkl->bki", u, v)
        return v


class SlotAttention(nn.Module):
    """Slot attention: a softmax over the queries."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (linear(), linear(), linear())
        self.sl = nn.Parameter(torch.randn(1, 5, D))

    def forward(self, x):
        q = self.q(self.sl.expand(2, -1, -1))
        k, v = (self.k(x), self.v(x))
        dots = torch.einsum("bid,bjd->bij", q, k) * D ** (-0.5)
        a = dots.softmax(1) + 1e-08
        a = a / a.sum(-1, keepdim=True)
        return torch.einsum("bjd,bij->bid", v, a)


class DiffTransformer(QKV):
    """Differential attention: the difference of two softmaxes."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        q1, q2 = q.chunk(2, -1)
        k1, k2 = k.chunk(2, -1)
        a = F.softmax(q1 @ k1.transpose(-1, -2), -1) - 0.3 * F.softmax(q2 @ k2.transpose(-1, -2), -1)
        return self.o(merge(a @ v))


class GptossSink(QKV):
    """Attention sinks: a score without a value."""

    def __init__(self):
        super().__init__()
        self.sink = nn.Parameter(torch.randn(H))

    def forward(self, x):
        q, k, v = self.qkv(x)
        w = q @ k.transpose(-1, -2) * d ** (-0.5)
        c = torch.cat([w, self.sink.reshape(1, -1, 1, 1).expand(x.shape[0], -1, x.shape[1], -1)], -1)
        c = c - c.max(-1, keepdim=True).values
        p = F.softmax(c, -1)[..., :-1]
        return self.o(merge(p @ v))


class Cosformer(QKV):
    """Linear attention."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        q, k = (F.relu(q), F.relu(k))
        kv = k.transpose(-1, -2) @ v
        z = 1 / (q @ k.sum(-2).unsqueeze(-1) + 1e-06)
        return self.o(merge(q @ kv * z))


class NonlocalDot(nn.Module):
    """Non-local block without an activation."""

    def __init__(self):
        super().__init__()
        self.t, self.p, self.g = [nn.Conv2d(32, 16, 1) for _ in range(3)]

    def forward(self, x):
        b = x.shape[0]
        g = self.g(x).view(b, 16, -1).permute(0, 2, 1)
        t = self.t(x).view(b, 16, -1).permute(0, 2, 1)
        p = self.p(x).view(b, 16, -1)
        f = t @ p
        return f / f.size(-1) @ g
