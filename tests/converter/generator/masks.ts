/** Masks and position terms: inputs, constants and those worked out from shapes. */
import { BOOL, FLOAT, INT64 } from '../../../proving/model-builder.js';
import type { Writer } from './writer.js';

export function addMask(w: Writer, scores: string): string {
  const { r, b } = w;
  const [N, M] = [r.queryLength, w.keyLength];
  const full = (data: string): string => b.op('Add', [scores, data]);
  const lead = w.isMerged ? [1] : [1, 1];
  const square = (value: (i: number, j: number) => number): number[] =>
    Array.from({ length: N * M }, (_, at) => value(Math.floor(at / M), at % M));
  const lowest = r.isHalf ? -65504 : -3.4028234663852886e38;
  switch (r.mask) {
    case 'none':
      return scores;
    case 'zero':
      return full(b.constant(w.type, [...lead, 1, M], new Array<number>(M).fill(0)));
    case 'additive-keys': {
      const keep = square((i, j) => (j === 0 || (i + j) % 3 > 0 ? 0 : -10000)).slice(0, M);
      return full(maskInput(w, 'mask', [...lead, 1, M], keep));
    }
    case 'additive-full':
      return full(
        maskInput(
          w,
          'mask',
          [...lead, N, M],
          square((i, j) => (j === 0 || w.random.chance(0.7) ? 0.5 * (i % 2) : lowest)),
        ),
      );
    case 'integer': {
      const flags = Array.from({ length: M }, (_, j) => (j < M - 1 ? 1 : 0));
      const mask = w.feed('attention_mask', [1, M], [1, M], flags, INT64);
      const wide = b.op('Cast', [b.unsqueeze(mask, w.isMerged ? [1] : [1, 2])], { to: w.type });
      return full(b.op('Mul', [b.op('Sub', [w.scalar(1), wide]), w.scalar(-10000)]));
    }
    case 'where-inf':
    case 'where-large':
    case 'where-flipped': {
      const hides = r.mask === 'where-flipped';
      const flags = square((_i, j) => (j === 0 || w.random.chance(0.7) ? 1 : 0)).map((flag) =>
        hides ? 1 - flag : flag,
      );
      const mask = w.feed('mask', [...lead, N, M], [...lead, N, M], flags, BOOL);
      const fill = w.scalar(r.mask === 'where-large' ? (r.isHalf ? -60000 : -1e9) : -Infinity);
      return b.op('Where', hides ? [mask, fill, scores] : [mask, scores, fill]);
    }
    case 'causal-constant':
      return b.op('Where', [
        b.constant(
          BOOL,
          [...lead, N, M],
          square((i, j) => (j <= i ? 1 : 0)),
        ),
        scores,
        w.scalar(-Infinity),
      ]);
    case 'causal-range':
    case 'window': {
      const length = (axis: number): string =>
        b.op('Gather', [b.op('Shape', [scores]), b.scalar(INT64, axis)]);
      const range = (axis: number): string =>
        b.op('Range', [b.scalar(INT64, 0), length(axis), b.scalar(INT64, 1)]);
      const [rows, keys] = w.isMerged ? [1, 2] : [2, 3];
      const distance = b.op('Sub', [b.unsqueeze(range(rows), [1]), b.unsqueeze(range(keys), [0])]);
      const isLater = b.op('Less', [distance, b.scalar(INT64, 0)]);
      if (r.mask === 'causal-range') return b.op('Where', [isLater, w.scalar(lowest), scores]);
      const isFar = b.op('Greater', [distance, b.scalar(INT64, 2)]);
      return b.op('Where', [b.op('Or', [isLater, isFar]), w.scalar(lowest), scores]);
    }
    case 'causal-trilu': {
      const shape = b.op('Concat', [b.size(scores, w.isMerged ? 1 : 2), b.size(scores, w.isMerged ? 2 : 3)], {
        axis: 0,
      });
      const filled = b.op('Expand', [b.scalar(FLOAT, lowest), shape]);
      const upper = b.op('Trilu', [filled, b.scalar(INT64, 1)], { upper: 1 });
      return full(w.type === FLOAT ? upper : b.op('Cast', [upper], { to: w.type }));
    }
    case 'bias-constant': {
      const lead2 = w.isMerged ? [1] : [r.heads];
      const count = lead2[0]! * N * M;
      return full(b.constant(w.type, [...lead2, N, M], w.random.normals(count)));
    }
    case 'alibi': {
      const heads = w.isMerged ? 1 : r.heads;
      const slopes = Array.from({ length: heads }, (_, h) => 2 ** -(h + 1));
      return full(
        b.constant(
          w.type,
          [heads, N, M],
          slopes.flatMap((slope) => square((i, j) => -slope * Math.abs(i - j))),
        ),
      );
    }
    case 'two-masks': {
      const causal = b.constant(
        w.type,
        [...lead, N, M],
        square((i, j) => (j <= i ? 0 : -10000)),
      );
      const keys = maskInput(
        w,
        'mask',
        [...lead, 1, M],
        Array.from({ length: M }, (_, j) => (j < M - 1 ? 0 : -10000)),
      );
      return b.op('Add', [full(causal), keys]);
    }
  }
}

function maskInput(w: Writer, name: string, dims: readonly number[], values: readonly number[]): string {
  return w.feed(name, dims, dims, values);
}
