/** The shapes that are timed: batch 1, as many key heads as query heads. */

export interface BenchShape {
  readonly type: 'f32' | 'f16';
  readonly heads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
}

const TYPES = ['f32', 'f16'] as const;

const square = (type: 'f32' | 'f16', heads: number, length: number, headSize: number): BenchShape => ({
  type,
  heads,
  queryLength: length,
  keyLength: length,
  headSize,
});

/** @param isSoftware a CPU emulates the GPU, which takes a thousand times as long */
export function prefillShapes(isSoftware: boolean): BenchShape[] {
  return TYPES.flatMap((type) =>
    isSoftware
      ? [256, 512, 1024].map((length) => square(type, 1, length, 64))
      : [64, 128].flatMap((headSize) =>
          [128, 512, 1024, 4096].map((length) => square(type, 16, length, headSize)),
        ),
  );
}

/** One query row over many keys. */
export const DECODE_SHAPES: readonly BenchShape[] = [
  [32, 16384, 128],
  [32, 4096, 64],
].flatMap(([heads, keyLength, headSize]) =>
  TYPES.map((type) => ({ type, heads: heads!, queryLength: 1, keyLength: keyLength!, headSize: headSize! })),
);

/** Scores that would take 8 GiB, were they kept. */
export const LONG_SHAPES: readonly BenchShape[] = TYPES.map((type) => square(type, 8, 16384, 64));

export function nameOf({ type, heads, queryLength, keyLength, headSize }: BenchShape): string {
  const length = queryLength === keyLength ? `N ${keyLength}` : `Nq ${queryLength}, Nk ${keyLength}`;
  return `${type}, H ${heads}, D ${headSize}, ${length}`;
}

/** Multiplications and additions of both products. */
export function flopsOf({ heads, queryLength, keyLength, headSize }: BenchShape): number {
  return 4 * heads * queryLength * keyLength * headSize;
}

/** Bytes of K and V. */
export function keyValueBytes({ type, heads, keyLength, headSize }: BenchShape): number {
  return 2 * heads * keyLength * headSize * (type === 'f32' ? 4 : 2);
}
