/** The product with the values, and the way from there to the model's output. */
import type { Writer } from './writer.js';

export function valueProduct(w: Writer, weights: string, value: string): string {
  const { r, b } = w;
  const swap = w.isMerged ? [0, 2, 1] : [0, 1, 3, 2];
  const isShared = r.repeat === 'broadcast' && r.group > 1;
  if (r.values === 'einsum')
    return b.op('Einsum', [weights, value], { equation: isShared ? 'bhij,bgjd->bhid' : 'bhij,bhjd->bhid' });
  if (r.values === 'left') {
    // (V^T P^T)^T
    const product = b.op('MatMul', [
      b.op('Transpose', [value], { perm: swap }),
      b.op('Transpose', [weights], { perm: swap }),
    ]);
    return b.op('Transpose', [product], { perm: swap });
  }
  return b.op('MatMul', [weights, value]);
}

export function finish(w: Writer, result: string): void {
  const { r, b, valueSize } = w;
  let output = result;
  if (!w.isMerged && r.output !== 'heads') {
    const moved = b.op('Transpose', [result], { perm: [0, 2, 1, 3] });
    output = b.op('Reshape', [moved, b.ints([0, 0, r.heads * valueSize])]);
    if (r.output === 'projected') output = b.op('MatMul', [output, w.weights(r.heads * valueSize, 8)]);
  }
  b.op('Identity', [output], {}, 'result');
  b.output('result', w.type);
}
