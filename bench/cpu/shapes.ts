/** The attention calls that are timed. */

export interface Shape {
  readonly name: string;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
  readonly type: 'float' | 'float16';
  /** Keys that rows may see: all, those up to their own position, or that many up to their own position. */
  readonly visible: 'all' | 'causal' | { readonly window: number };
  /** A number added to the scores of each key, `[B,1,1,Nk]`: 0 or -10000 (one key in eight, at the end). */
  readonly keyMask: boolean;
}

function shape(
  batch: number,
  heads: number,
  queryLength: number,
  headSize: number,
  more: Partial<Shape> = {},
): Shape {
  const filled = {
    batch,
    heads,
    kvHeads: heads,
    queryLength,
    keyLength: queryLength,
    headSize,
    type: 'float' as const,
    visible: 'all' as const,
    keyMask: false,
    ...more,
  };
  return { name: nameOf(filled), ...filled };
}

function nameOf(shape: Omit<Shape, 'name'>): string {
  const { batch, heads, kvHeads, queryLength, keyLength, headSize, type, visible, keyMask } = shape;
  const length = queryLength === keyLength ? `${queryLength}` : `${queryLength}x${keyLength}`;
  const parts = [`${batch},${kvHeads === heads ? heads : `${heads}/${kvHeads}`},${length},${headSize}`];
  if (visible !== 'all') parts.push(visible === 'causal' ? 'causal' : `window ${visible.window}`);
  if (keyMask) parts.push('mask');
  if (type !== 'float') parts.push(type);
  return parts.join(' ');
}

/** B, H (query/kv heads), N (Nq x Nk), D. */
export const SHAPES: readonly Shape[] = [
  shape(1, 12, 128, 64),
  shape(1, 12, 197, 64),
  shape(1, 12, 512, 64),
  shape(1, 8, 1024, 64),
  shape(1, 8, 1024, 128),
  shape(1, 4, 4096, 64),
  shape(8, 12, 128, 64),
  shape(1, 8, 1024, 64, { visible: 'causal' }),
  shape(1, 32, 512, 128, { kvHeads: 8 }),
  shape(1, 4, 4096, 64, { visible: { window: 256 } }),
  shape(4, 12, 512, 64, { keyMask: true }),
  shape(1, 32, 1, 128, { keyLength: 4096 }),
  shape(1, 32, 1, 128, { keyLength: 1024, kvHeads: 8 }),
  shape(1, 12, 128, 64, { type: 'float16' }),
  shape(1, 12, 512, 64, { type: 'float16' }),
  shape(1, 8, 1024, 128, { type: 'float16' }),
];

export function isDecode(shape: Shape): boolean {
  return shape.queryLength <= 8;
}

/** Multiplications and additions of both products, excluded keys included, as is usual. */
export function flops(shape: Shape): number {
  const { batch, heads, queryLength, keyLength, headSize } = shape;
  return 4 * batch * heads * queryLength * keyLength * headSize;
}

export function isVisible(shape: Shape, row: number, key: number): boolean {
  if (shape.visible === 'all') return true;
  const oldest = shape.visible === 'causal' ? 0 : row - shape.visible.window;
  return key <= row && key >= oldest;
}

/** First of the keys that the mask excludes. */
export function maskedFrom(shape: Shape): number {
  return shape.keyMask ? shape.keyLength - Math.floor(shape.keyLength / 8) : shape.keyLength;
}
