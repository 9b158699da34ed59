/** Queries, keys and values: from graph inputs or projections, split into heads in each layout. */
import { INT64 } from '../../../proving/model-builder.js';
import { withCache } from './cache.js';
import type { Operands, Writer } from './writer.js';

export function projectOperands(w: Writer): Operands {
  const { r, b, kvHeads, valueSize } = w;
  const [B, N, M, H, D] = [r.batch, r.queryLength, r.keyLength, r.heads, r.headSize];
  const width = 16;
  const random = (count: number): number[] => w.random.normals(count);
  switch (r.layout) {
    case 'direct': {
      const query = w.feed('q', [B, H, N, D], ['batch', H, 'n', D], random(B * H * N * D));
      const key = w.feed(
        'k',
        [B, kvHeads, M, D],
        ['batch', kvHeads, w.keySymbol(), D],
        random(B * kvHeads * M * D),
      );
      const value = w.feed(
        'v',
        [B, kvHeads, M, valueSize],
        ['batch', kvHeads, w.keySymbol(), valueSize],
        random(B * kvHeads * M * valueSize),
      );
      return withCache(w, { query, key, value });
    }
    case 'direct-three': {
      const query = w.feed('q', [B, N, D], ['batch', 'n', D], random(B * N * D));
      const key = w.feed('k', [B, M, D], ['batch', w.keySymbol(), D], random(B * M * D));
      const value = w.feed(
        'v',
        [B, M, valueSize],
        ['batch', w.keySymbol(), valueSize],
        random(B * M * valueSize),
      );
      return { query, key, value };
    }
    case 'heads-inside': {
      // [B, N, H, D] as graph inputs, transposed.
      const query = w.feed('q', [B, N, H, D], ['batch', 'n', H, D], random(B * N * H * D));
      const key = w.feed(
        'k',
        [B, M, kvHeads, D],
        ['batch', w.keySymbol(), kvHeads, D],
        random(B * M * kvHeads * D),
      );
      const value = w.feed(
        'v',
        [B, M, kvHeads, valueSize],
        ['batch', w.keySymbol(), kvHeads, valueSize],
        random(B * M * kvHeads * valueSize),
      );
      const swap = (name: string): string => b.op('Transpose', [name], { perm: [0, 2, 1, 3] });
      return withCache(w, { query: swap(query), key: swap(key), value: swap(value) });
    }
    case 'fused-split':
    case 'fused-five': {
      const x = w.feed('x', [B, N, width], ['batch', 'n', width], random(B * N * width));
      const all = b.op('MatMul', [x, w.weights(width, 3 * H * D)]);
      if (r.layout === 'fused-split') {
        const parts = b.split(all, 2, [H * D, H * D, H * D]);
        const [query, key, value] = parts.map((part) => w.splitHeads(part, H, D, x)) as [
          string,
          string,
          string,
        ];
        return { query, key, value };
      }
      const five = b.op('Reshape', [all, w.shape([w.batchOf(x), w.rowsOf(x), 3, H, D])]);
      const moved = b.op('Transpose', [five], { perm: [2, 0, 3, 1, 4] });
      const pick = (index: number): string =>
        w.random.chance(0.5)
          ? b.op('Gather', [moved, b.scalar(INT64, index)], { axis: 0 })
          : b.squeeze(b.op('Slice', [moved, b.ints([index]), b.ints([index + 1]), b.ints([0])]), [0]);
      return { query: pick(0), key: pick(1), value: pick(2) };
    }
    case 'sequence-first': {
      const x = w.feed('x', [N, B, width], ['n', 'batch', width], random(N * B * width));
      const y =
        M === N ? x : w.feed('y', [M, B, width], [w.keySymbol(), 'batch', width], random(M * B * width));
      const heads = (source: string, count: number, size: number): string => {
        const projected = b.op('MatMul', [source, w.weights(width, count * size)]);
        const four = b.op('Reshape', [
          projected,
          w.shape([w.sizeOf(source, 0, w.lengthOf(source)), w.sizeOf(source, 1, B), count, size]),
        ]);
        return b.op('Transpose', [four], { perm: [1, 2, 0, 3] });
      };
      return withCache(w, {
        query: heads(x, H, D),
        key: heads(y, kvHeads, D),
        value: heads(y, kvHeads, valueSize),
      });
    }
    case 'split-heads':
    case 'merged': {
      const x = w.feed('x', [B, N, width], ['batch', 'n', width], random(B * N * width));
      const y =
        M === N ? x : w.feed('y', [B, M, width], ['batch', w.keySymbol(), width], random(B * M * width));
      const project = (source: string, count: number, size: number): string => {
        const product = b.op('MatMul', [source, w.weights(width, count * size)]);
        return w.splitHeads(
          b.op('Add', [product, b.constant(w.type, [count * size], random(count * size))]),
          count,
          size,
          source,
        );
      };
      const query = project(x, H, D);
      const key = project(y, kvHeads, D);
      const value = project(y, kvHeads, valueSize);
      if (r.layout === 'split-heads') return withCache(w, { query, key, value });
      const merge = (name: string, length: number, size: number): string =>
        b.op('Reshape', [name, r.isDynamic ? b.ints([-1, length, size]) : b.ints([B * H, length, size])]);
      return r.isDynamic
        ? {
            query: w.merge(query, x, D),
            key: w.merge(key, y, D),
            value: w.merge(value, y, valueSize),
          }
        : { query: merge(query, N, D), key: merge(key, M, D), value: merge(value, M, valueSize) };
    }
  }
}
