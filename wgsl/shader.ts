/**
 * How a WGSL source becomes a specialised shader: a few text pieces are chosen here (element type, vector or scalar
 * access, unrolled register tiles); everything else is decided by pipeline-overridable constants.
 */

/** How the elements of Q, K, V, the past and Y are stored and read. */
export interface ElementLayout {
  /** `f16` needs the device feature shader-f16. Arithmetic is f32 for both. */
  readonly type: 'f32' | 'f16';
  /** True: four elements at once, which needs head sizes and strides that are multiples of 4. */
  readonly vectors: boolean;
}

/** Repeats a piece of text for 0 .. count - 1. */
export function unroll(count: number, piece: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => piece(index)).join('\n');
}

/** Joins pieces of an expression for 0 .. count - 1 with commas. */
export function list(count: number, piece: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => piece(index)).join(', ');
}

/** The directives that must open the shader. */
export function directives({ type }: ElementLayout): string {
  return type === 'f16' ? 'enable f16;\n' : '';
}

/** The type of a buffer of elements that is written. */
export function elementArray({ type, vectors }: ElementLayout): string {
  return vectors ? `array<vec4<${type}>>` : `array<${type}>`;
}

/** The type of a buffer of elements that {@link rowReader} reads: words for vectors of f16, which drivers load at once. */
export function sourceArray(layout: ElementLayout): string {
  return layout.vectors && layout.type === 'f16' ? 'array<vec2u>' : elementArray(layout);
}

/**
 * A WGSL function `name(start, d4)` that reads elements 4 d4 .. 4 d4 + 3 of the row that starts at element `start` of
 * `buffer`; elements at or past `size` read as 0.
 */
export function rowReader(
  name: string,
  buffer: string,
  size: string,
  { type, vectors }: ElementLayout,
): string {
  if (vectors && type === 'f16')
    return /* wgsl */ `
fn ${name}(start: u32, d4: u32) -> vec4f {
  let words = ${buffer}[(start >> 2u) + d4];
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}`;
  if (vectors)
    return /* wgsl */ `
fn ${name}(start: u32, d4: u32) -> vec4f {
  return vec4f(${buffer}[(start >> 2u) + d4]);
}`;
  return /* wgsl */ `
fn ${name}(start: u32, d4: u32) -> vec4f {
  let d = 4u * d4;
  let left = ${size} - d;
  let at = start + d;
  return vec4f(
    f32(${buffer}[at]),
    select(0.0, f32(${buffer}[at + 1u]), left > 1u),
    select(0.0, f32(${buffer}[at + 2u]), left > 2u),
    select(0.0, f32(${buffer}[at + 3u]), left > 3u));
}`;
}

/** A WGSL function `name(start, d8)` that reads elements 8 d8 .. 8 d8 + 7 of f16 as words; whole eights alone. */
export function pairReader(name: string, buffer: string): string {
  return /* wgsl */ `
fn ${name}(start: u32, d8: u32) -> vec4u { return ${buffer}[(start >> 3u) + d8]; }`;
}

/** A WGSL function `name(start, d4, value)`, the counterpart of {@link rowReader}. */
export function rowWriter(name: string, buffer: string, size: string, layout: ElementLayout): string {
  const { type, vectors } = layout;
  if (vectors)
    return /* wgsl */ `
fn ${name}(start: u32, d4: u32, value: vec4f) {
  ${buffer}[(start >> 2u) + d4] = vec4<${type}>(value);
}`;
  return /* wgsl */ `
fn ${name}(start: u32, d4: u32, value: vec4f) {
  for (var e = 0u; e < min(4u, ${size} - 4u * d4); e++) {
    ${buffer}[start + 4u * d4 + e] = ${type}(value[e]);
  }
}`;
}
