/** The shapes that are timed: batch 1, as many key heads as query heads. */

export interface BenchShape {
  readonly type: 'f32' | 'f16';
  readonly heads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
}

const square = (type: 'f32' | 'f16', heads: number, length: number, headSize: number): BenchShape => ({
  type,
  heads,
  queryLength: length,
  keyLength: length,
  headSize,
});

/** @param isSoftware a CPU emulates the GPU, which takes a thousand times as long */
export function benchShapes(isSoftware: boolean, hasFloat16: boolean): BenchShape[] {
  const types = hasFloat16 ? (['f32', 'f16'] as const) : (['f32'] as const);
  if (isSoftware) return types.flatMap((type) => [256, 512].map((length) => square(type, 2, length, 64)));
  return types.flatMap((type) =>
    [64, 128].flatMap((headSize) =>
      [128, 512, 1024, 4096].map((length) => square(type, 16, length, headSize)),
    ),
  );
}

export function decodeShapes(hasFloat16: boolean): BenchShape[] {
  const types = hasFloat16 ? (['f32', 'f16'] as const) : (['f32'] as const);
  return types.map((type) => ({ type, heads: 32, queryLength: 1, keyLength: 16384, headSize: 128 }));
}

export function nameOf({ type, heads, queryLength, keyLength, headSize }: BenchShape): string {
  return `${type} H ${heads}, D ${headSize}, Nq ${queryLength}, Nk ${keyLength}`;
}

/** Multiplications and additions of both products. */
export function flopsOf({ heads, queryLength, keyLength, headSize }: BenchShape): number {
  return 4 * heads * queryLength * keyLength * headSize;
}
