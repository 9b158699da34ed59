"""Attention of vision models and of other fields, as their code spells it."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .layers import QKV, D, H, d, linear, merge


class Swinv2CosineLogcpb(nn.Module):
    """Swin V2: cosine similarity, a clamped temperature, continuous position bias, shifted windows."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.qb = nn.Parameter(torch.randn(D))
        self.vb = nn.Parameter(torch.randn(D))
        self.ls = nn.Parameter(torch.log(10 * torch.ones(H, 1, 1)))
        self.mlp = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, H, bias=False))
        self.register_buffer("tab", torch.randn(1, 7, 7, 2))
        self.register_buffer("idx", torch.randint(0, 49, (16, 16)))
        self.o = linear()
        self.register_buffer("mask", torch.where(torch.rand(4, 16, 16) > 0.5, 0.0, -100.0))

    def forward(self, x):
        B, N, C = x.shape
        qkv = (
            F.linear(x, self.qkv.weight, torch.cat((self.qb, torch.zeros_like(self.vb), self.vb)))
            .reshape(B, N, 3, H, -1)
            .permute(2, 0, 3, 1, 4)
        )
        q, k, v = (qkv[0], qkv[1], qkv[2])
        a = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        a = a * torch.clamp(self.ls, max=math.log(100.0)).exp()
        t = self.mlp(self.tab).view(-1, H)
        b = t[self.idx.view(-1)].view(N, N, -1).permute(2, 0, 1).contiguous()
        a = a + (16 * torch.sigmoid(b)).unsqueeze(0)
        a = a.view(-1, 4, H, N, N) + self.mask.unsqueeze(1).unsqueeze(0)
        a = a.view(-1, H, N, N)
        a = F.softmax(a, -1)
        return self.o((a @ v).transpose(1, 2).reshape(B, N, C))


class DiffusersBaddbmmCross(nn.Module):
    """diffusers: baddbmm with beta 0 and upcast attention to pixels, then to text."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (
            linear(bias=False),
            linear(24, 32, False),
            linear(24, 32, False),
            linear(),
        )
        self.q2, self.k2, self.v2 = (linear(), linear(), linear())

    def h(self, t):
        B, N, C = t.shape
        return t.reshape(B, N, H, C // H).permute(0, 2, 1, 3).reshape(B * H, N, C // H)

    def u(self, t):
        B, N, C = t.shape
        return t.reshape(B // H, H, N, C).permute(0, 2, 1, 3).reshape(B // H, N, C * H)

    def at(self, q, k, v):
        q, k = (q.float(), k.float())
        sc = torch.baddbmm(
            torch.empty(q.shape[0], q.shape[1], k.shape[1]), q, k.transpose(-1, -2), beta=0, alpha=d ** (-0.5)
        )
        p = sc.softmax(-1).to(v.dtype)
        return torch.bmm(p, v)

    def forward(self, x, c):
        x = x + self.u(self.at(self.h(self.q2(x)), self.h(self.k2(x)), self.h(self.v2(x))))
        return self.o(self.u(self.at(self.h(self.q(x)), self.h(self.k(c)), self.h(self.v(c)))))


class DiffusersAttnblockConv(nn.Module):
    """Convolutional attention block of a VAE: values times transposed weights."""

    def __init__(self):
        super().__init__()
        self.n = nn.GroupNorm(4, 32)
        self.q, self.k, self.v, self.o = [nn.Conv2d(32, 32, 1) for _ in range(4)]

    def forward(self, x):
        h = self.n(x)
        q, k, v = (self.q(h), self.k(h), self.v(h))
        b, c, hh, w = q.shape
        q = q.reshape(b, c, hh * w).permute(0, 2, 1)
        k = k.reshape(b, c, hh * w)
        w_ = torch.bmm(q, k) * int(c) ** (-0.5)
        w_ = F.softmax(w_, dim=2)
        v = v.reshape(b, c, hh * w)
        h_ = torch.bmm(v, w_.permute(0, 2, 1)).reshape(b, c, hh, w)
        return x + self.o(h_)


class OpenaiUnetQkvattention(nn.Module):
    """OpenAI UNet: queries, keys and values packed in channels, the scale split in two."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv1d(32, 96, 1)
        self.o = nn.Conv1d(32, 32, 1)
        self.n = nn.GroupNorm(8, 32)

    def forward(self, x):
        qkv = self.qkv(self.n(x))
        bs, w, l = qkv.shape
        ch = w // (3 * H)
        q, k, v = qkv.reshape(bs * H, ch * 3, l).split(ch, dim=1)
        sc = 1 / math.sqrt(math.sqrt(ch))
        wt = torch.einsum("bct,bcs->bts", q * sc, k * sc)
        wt = torch.softmax(wt.float(), -1).type(wt.dtype)
        return x + self.o(torch.einsum("bts,bcs->bct", wt, v).reshape(bs, -1, l))


class SamTwoWay(nn.Module):
    """SAM mask decoder: tokens to image and back."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (linear(32, 16), linear(32, 16), linear(32, 16), linear(16, 32))
        self.q2, self.k2, self.v2, self.o2 = (linear(32, 16), linear(32, 16), linear(32, 16), linear(16, 32))

    def a(self, q, k, v, f):
        t = lambda x: x.reshape(x.shape[0], x.shape[1], H, x.shape[2] // H).transpose(1, 2)
        q, k, v = (t(f[0](q)), t(f[1](k)), t(f[2](v)))
        at = q @ k.permute(0, 1, 3, 2)
        at = at / math.sqrt(q.shape[-1])
        at = torch.softmax(at, -1)
        o = (at @ v).transpose(1, 2)
        return f[3](o.reshape(o.shape[0], o.shape[1], -1))

    def forward(self, p, i):
        p = p + self.a(p, i + 1, i, (self.q, self.k, self.v, self.o))
        return (p, i + self.a(i, p + 1, p, (self.q2, self.k2, self.v2, self.o2)))


class SvtrPaddleLike(nn.Module):
    """SVTR (PaddleOCR): a local window as a constant of -inf."""

    def __init__(self):
        super().__init__()
        self.qkv = linear(D, 3 * D)
        self.o = linear()
        m = torch.full((16, 16), float("-inf"))
        [m[i].__setitem__(slice(max(0, i - 3), i + 4), 0) for i in range(16)]
        self.register_buffer("m", m[None, None])

    def forward(self, x):
        x = x.permute(0, 2, 1)
        qkv = self.qkv(x).reshape((-1, 16, 3, H, d)).permute(2, 0, 3, 1, 4)
        q, k, v = (qkv[0] * d ** (-0.5), qkv[1], qkv[2])
        a = q.matmul(k.permute(0, 1, 3, 2))
        a = a + self.m
        a = F.softmax(a, -1)
        return self.o(a.matmul(v).permute(0, 2, 1, 3).reshape((-1, 16, D)))


class AgentAttention(QKV):
    """Agent attention: two softmax attentions through pooled tokens."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        ag = (
            F.adaptive_avg_pool2d(q.transpose(1, 2).reshape(2, 4, 4, D).permute(0, 3, 1, 2), (2, 2))
            .reshape(2, H, d, 4)
            .permute(0, 1, 3, 2)
        )
        a = F.softmax(ag * d ** (-0.5) @ k.transpose(-2, -1), -1)
        av = a @ v
        qa = F.softmax(q * d ** (-0.5) @ ag.transpose(-2, -1), -1)
        return self.o(merge(qa @ av))


class EvoformerTriangleGated(QKV):
    """Evoformer: five axes, mask and pair bias, a gate on the output."""

    def __init__(self):
        super().__init__()
        self.b = linear(D, H, False)
        self.g = linear()

    def forward(self, x, m):
        q = self.q(x) * d ** (-0.5)
        k, v = (self.k(x), self.v(x))
        t = lambda z: z.view(z.shape[:-1] + (H, -1)).transpose(-2, -3)
        q, k, v = (t(q), t(k), t(v))
        mb = (
            (1000000000.0 * (m - 1))[..., :, None, None, :].transpose(1, 1)
            if False
            else (1000000000.0 * (m - 1))[:, :, None, None, :]
        )
        tb = self.b(x[:, :, :]).permute(0, 3, 1, 2)[:, :, :1].expand(-1, -1, 9, -1).unsqueeze(1)
        a = torch.matmul(q, k.transpose(-1, -2))
        a = a + mb
        a = a + tb
        a = F.softmax(a, -1)
        o = torch.matmul(a, v).transpose(-2, -3)
        g = torch.sigmoid(self.g(x)).view(x.shape[:-1] + (H, d))
        o = o * g
        return self.o(o.reshape(o.shape[:-2] + (-1,)))


class AxialHeightEinsum(QKV):
    """Axial attention over the height, by Einsum with the width as batch."""

    def forward(self, x):
        B, hh, w, C = x.shape
        t = lambda z: z.view(B, hh, w, H, d)
        q, k, v = (t(self.q(x)), t(self.k(x)), t(self.v(x)))
        a = torch.einsum("biwhd,bjwhd->bwhij", q, k) * d ** (-0.5)
        return self.o(torch.einsum("bwhij,bjwhd->biwhd", F.softmax(a, -1), v).reshape(B, hh, w, C))


class Mask2formerMaskedAttention(QKV):
    """Mask2Former: a boolean mask computed from a sigmoid."""

    def __init__(self):
        super().__init__()
        self.me = linear()

    def forward(self, x, f):
        am = (
            (
                torch.sigmoid(self.me(x) @ f.transpose(1, 2)).unsqueeze(1).repeat(1, H, 1, 1).flatten(0, 1)
                < 0.5
            )
            .bool()
            .detach()
        )
        am = am.clone()
        am = am & ~(am.sum(-1, keepdim=True) == am.shape[-1])
        q, k, v = self.qkv(x, f)
        q = q.reshape(2 * H, 5, d) * d ** (-0.5)
        k = k.reshape(2 * H, 16, d)
        v = v.reshape(2 * H, 16, d)
        sc = q @ k.transpose(1, 2)
        sc = sc.masked_fill(am, float("-inf"))
        return self.o(merge((F.softmax(sc, -1) @ v).view(2, H, 5, d)))


class SetTransformerIsab(nn.Module):
    """Set Transformer: heads split along the batch."""

    def __init__(self):
        super().__init__()
        self.I = nn.Parameter(torch.randn(1, 6, D))
        self.a, self.b = (QKV(), QKV())

    def mab(self, m, Q, K):
        q, k, v = (m.q(Q), m.k(K), m.v(K))
        q_ = torch.cat(q.split(d, 2), 0)
        k_ = torch.cat(k.split(d, 2), 0)
        v_ = torch.cat(v.split(d, 2), 0)
        A_ = torch.softmax(q_.bmm(k_.transpose(1, 2)) / math.sqrt(D), 2)
        o = torch.cat((q_ + A_.bmm(v_)).split(Q.size(0), 0), 2)
        return o + F.relu(m.o(o))

    def forward(self, x):
        h = self.mab(self.a, self.I.repeat(x.size(0), 1, 1), x)
        return self.mab(self.b, x, h)


class HaloUnfold(nn.Module):
    """HaloNet: blocks of queries, overlapping blocks of keys by unfold."""

    def __init__(self):
        super().__init__()
        self.q = nn.Conv2d(32, 32, 1)
        self.kv = nn.Conv2d(32, 64, 1)

    def forward(self, x):
        q = (
            self.q(x)
            .reshape(-1, d, 2, 4, 2, 4)
            .permute(0, 1, 3, 5, 2, 4)
            .reshape(H, d, 16, -1)
            .transpose(1, 3)
        )
        kv = F.unfold(self.kv(x), 6, padding=1, stride=4).reshape(H, 16, 36, -1).permute(0, 3, 2, 1)
        k, v = torch.split(kv, [d, d], -1)
        a = F.softmax(q @ k.transpose(-1, -2) * d ** (-0.5), -1)
        o = (
            (a @ v)
            .transpose(1, 3)
            .reshape(-1, 4, 4, 2, 2)
            .permute(0, 3, 1, 4, 2)
            .contiguous()
            .view(1, 32, 8, 8)
        )
        return o
