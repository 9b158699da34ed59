/** A cache of earlier keys and values, joined to the new ones, and key heads repeated for their query heads. */
import type { Operands, Writer } from './writer.js';

export function withCache(w: Writer, operands: Operands): Operands {
  const { r, b, kvHeads, valueSize, past } = w;
  if (!r.cache) return operands;
  const join = (name: string, fresh: string, size: number): string => {
    const shape = [r.batch, kvHeads, past, size];
    const old = w.feed(
      `past_${name}`,
      shape,
      ['batch', kvHeads, 'past', size],
      w.random.normals(r.batch * kvHeads * past * size),
    );
    b.output(`present_${name}`, w.type);
    return b.op('Concat', [old, fresh], { axis: 2 }, `present_${name}`);
  };
  return {
    query: operands.query,
    key: join('key', operands.key, r.headSize),
    value: join('value', operands.value, valueSize),
  };
}

export function repeatHeads(w: Writer, operands: Operands): Operands {
  const { r, b, kvHeads } = w;
  if (r.group === 1) return operands;
  const repeat = (name: string, size: number): string => {
    switch (r.repeat) {
      case 'broadcast':
        return name;
      case 'gather':
        return b.op(
          'Gather',
          [name, b.ints(Array.from({ length: r.heads }, (_, i) => Math.floor(i / r.group)))],
          { axis: 1 },
        );
      case 'expand':
      case 'tile': {
        const five = b.unsqueeze(name, [2]);
        const batch = w.sizeOf(name, 0, r.batch);
        const length = w.sizeOf(name, 2, w.keyLength);
        const wide =
          r.repeat === 'tile'
            ? b.op('Tile', [five, b.ints([1, 1, r.group, 1, 1])])
            : b.op('Expand', [five, w.shape([batch, kvHeads, r.group, length, size])]);
        return b.op('Reshape', [wide, w.shape([batch, r.heads, length, size])]);
      }
    }
  };
  return {
    query: operands.query,
    key: repeat(operands.key, r.headSize),
    value: repeat(operands.value, w.valueSize),
  };
}
