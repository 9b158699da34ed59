/**
 * The uniform block `Problem` of the shaders: written in the order of its WGSL declaration, uploaded once per content.
 */

/** Where element (b, h, n) of a tensor lies: base + b * batch + h * head + n * row, modulo 2^32. */
export interface Strides {
  base: number;
  batch: number;
  head: number;
  row: number;
}

const NO_STRIDES: Strides = { base: 0, batch: 0, head: 0, row: 0 };

/** The fields in the order of the WGSL struct; the letter is the type: s strides, u u32, i i32, f f32. */
const FIELDS = [
  ['q', 's'],
  ['k', 's'],
  ['v', 's'],
  ['past_key', 's'],
  ['past_value', 's'],
  ['mask', 's'],
  ['out', 's'],
  ['mask_column', 'u'],
  ['first_batch', 'u'],
  ['first_head', 'u'],
  ['query_heads', 'u'],
  ['group', 'u'],
  ['query_length', 'u'],
  ['key_length', 'u'],
  ['past_length', 'u'],
  ['head_size', 'u'],
  ['value_size', 'u'],
  ['row_begin', 'u'],
  ['row_end', 'u'],
  ['key_begin', 'u'],
  ['key_end', 'u'],
  ['splits', 'u'],
  ['group_begin', 'u'],
  ['left_window', 'i'],
  ['right_window', 'i'],
  ['row_offset', 'i'],
  ['rows', 'u'],
  ['scale', 'f'],
  ['bias', 'f'],
  ['softcap', 'f'],
  ['head_bias_stride', 'u'],
  ['alibi_stride', 'u'],
  ['split_stride', 'u'],
  ['head_count', 'u'],
  ['group_count', 'u'],
  ['flags', 'u'],
] as const;

type Field = (typeof FIELDS)[number];
/** The fields by name; absent ones are 0. */
export type ProblemFields = { [F in Field as F[0]]?: F[1] extends 's' ? Strides : number };

/** The block as bytes, little-endian. */
export function encodeProblem(fields: ProblemFields): Uint8Array<ArrayBuffer> {
  const words = FIELDS.reduce((sum, [, type]) => sum + (type === 's' ? 4 : 1), 0);
  const view = new DataView(new ArrayBuffer(4 * words));
  let at = 0;
  const put = (type: 'u' | 'i' | 'f', value: number): void => {
    if (type === 'f') view.setFloat32(at, value, true);
    else view.setUint32(at, value, true);
    at += 4;
  };
  for (const [name, type] of FIELDS) {
    if (type === 's') {
      const { base, batch, head, row } = fields[name] ?? NO_STRIDES;
      for (const stride of [base, batch, head, row]) put('u', stride);
    } else put(type, fields[name] ?? 0);
  }
  return new Uint8Array(view.buffer);
}
