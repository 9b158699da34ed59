/** Which keys the rows of a site see under several masks at once. */
import type { CanonicalValue } from './canonical.js';

/** Elements up to which masks are combined. */
const MAX_COMBINED = 1 << 22;

/** Some row sees no key under all masks together; each is 1 where a key takes part. */
export function leavesRowEmpty(masks: readonly CanonicalValue[]): boolean {
  const dims = [0, 1, 2, 3].map((axis) => Math.max(...masks.map((mask) => mask.dims[axis]!)));
  const [batches, heads, rows, keys] = dims as [number, number, number, number];
  if (batches * heads * rows * keys > MAX_COMBINED) return false;
  for (let b = 0; b < batches; b++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < rows; i++) {
        let sees = false;
        for (let j = 0; j < keys && !sees; j++)
          sees = masks.every((mask) => elementAt(mask, [b, h, i, j]) !== 0);
        if (!sees && keys > 0) return true;
      }
  return false;
}

/** The element at batch, head, row and key; axes of size 1 hold for every place. */
export function elementAt({ dims, data }: CanonicalValue, place: readonly number[]): number {
  let index = 0;
  dims.forEach((dim, axis) => (index = index * dim + (dim === 1 ? 0 : place[axis]!)));
  return data[index]!;
}
