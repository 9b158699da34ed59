/** Scores: the product of queries and keys, its scale wherever that is written, and a bias. */
import type { Operands, Writer } from './writer.js';

export function scaleOperands(w: Writer, operands: Operands): Operands {
  const { r, b } = w;
  const scale = 1 / Math.sqrt(r.headSize);
  const times = (name: string, factor: number): string => b.op('Mul', [name, w.scalar(factor)]);
  switch (r.scale) {
    case 'query':
      return { ...operands, query: times(operands.query, scale) };
    case 'key':
      return { ...operands, key: b.op('Div', [operands.key, w.scalar(1 / scale)]) };
    case 'both': {
      const root = Math.sqrt(scale);
      return { ...operands, query: times(operands.query, root), key: times(operands.key, root) };
    }
    default:
      return operands;
  }
}

export function scoreProduct(w: Writer, query: string, key: string): string {
  const { r, b } = w;
  switch (r.product) {
    case 'einsum':
      return b.op('Einsum', [query, key], {
        equation: r.repeat === 'broadcast' && r.group > 1 ? 'bhid,bgjd->bhij' : 'bhid,bhjd->bhij',
      });
    case 'fused-matmul':
      return b.op(
        'FusedMatMul',
        [query, key],
        { transB: 1, alpha: { float: 1 } },
        undefined,
        'com.microsoft',
      );
    case 'swapped': {
      // (K Q^T)^T
      const product = b.op('MatMul', [key, b.op('Transpose', [query], { perm: [0, 1, 3, 2] })]);
      return b.op('Transpose', [product], { perm: [0, 1, 3, 2] });
    }
    case 'matmul':
      return b.op('MatMul', [query, transposed(w, key)]);
  }
}

/** Swaps the last two axes of the keys. */
function transposed(w: Writer, key: string): string {
  const { r, b } = w;
  if (w.isMerged) return b.op('Transpose', [key], { perm: [0, 2, 1] });
  if (r.keyTranspose === 'sandwich') {
    const flat = b.op('Reshape', [key, w.shape([-1, w.sizeOf(key, 2, w.keyLength), r.headSize])]);
    const swapped = b.op('Transpose', [flat], { perm: [0, 2, 1] });
    const batch = w.sizeOf(key, 0, r.batch);
    const heads = r.repeat === 'broadcast' && r.group > 1 ? w.kvHeads : r.heads;
    return b.op('Reshape', [swapped, w.shape([batch, heads, r.headSize, w.sizeOf(key, 2, w.keyLength)])]);
  }
  if (r.keyTranspose === 'perm') {
    const inner = b.op('Transpose', [key], { perm: [0, 2, 1, 3] });
    return b.op('Transpose', [inner], { perm: [0, 2, 3, 1] });
  }
  return b.op('Transpose', [key], { perm: [0, 1, 3, 2] });
}

export function scaleScores(w: Writer, scores: string): string {
  const { r, b } = w;
  const scale = 1 / Math.sqrt(r.headSize);
  switch (r.scale) {
    case 'mul':
      return b.op('Mul', [scores, w.scalar(scale)]);
    case 'mul-first':
      return b.op('Mul', [w.scalar(scale), scores]);
    case 'div':
      return b.op('Div', [scores, w.scalar(1 / scale)]);
    case 'runtime': {
      const size = b.op('Cast', [b.ints([r.headSize])], { to: w.type });
      return b.op('Div', [scores, b.op('Sqrt', [size])]);
    }
    case 'per-head': {
      const factors = Array.from({ length: r.heads }, (_, i) => scale * (1 + 0.3 * i));
      return b.op('Mul', [scores, b.constant(w.type, [r.heads, 1, 1], factors)]);
    }
    default:
      return scores;
  }
}

export function addBias(w: Writer, scores: string): string {
  const { r, b } = w;
  switch (r.bias) {
    case 'constant':
      return b.op('Add', [scores, w.scalar(-1.5)]);
    case 'first':
      return b.op('Add', [w.scalar(-1.5), scores]);
    case 'sub':
      return b.op('Sub', [scores, w.scalar(1.5)]);
    case 'per-head':
      return b.op('Add', [scores, b.constant(w.type, [1, r.heads, 1, 1], w.random.normals(r.heads))]);
    case 'log-n': {
      const count = b.op('Cast', [b.size(scores, w.isMerged ? 2 : 3)], { to: w.type });
      return b.op('Sub', [scores, b.op('Log', [count])]);
    }
    case 'none':
      return scores;
  }
}
