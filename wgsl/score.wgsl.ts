/**
 * What every attention kernel shares: the description of the call, the buffers, and the way from a score to a weight.
 * The meaning is that of docs/operator.md.
 */

import {
  directives,
  elementArray,
  type ElementLayout,
  pairReader,
  rowReader,
  rowWriter,
  sourceArray,
} from './shader.js';

/** WGSL: the description of one dispatch; laid out by {@link ProblemField} and written by uniform.ts. */
export const PROBLEM = /* wgsl */ `
// Element (b, h, n) of a tensor starts at base + b * batch + h * head + n * row, modulo 2^32: base makes up for the part of
// the tensor that lies before the bound range.
struct Strides { base: u32, batch: u32, head: u32, row: u32 }

struct Problem {
  q: Strides, k: Strides, v: Strides, past_key: Strides, past_value: Strides, mask: Strides, out: Strides,
  mask_column: u32, first_batch: u32, first_head: u32, query_heads: u32,
  group: u32, query_length: u32, key_length: u32, past_length: u32,
  head_size: u32, value_size: u32, row_begin: u32, row_end: u32,
  key_begin: u32, key_end: u32, splits: u32, group_begin: u32,
  left_window: i32, right_window: i32, row_offset: i32, rows: u32,
  scale: f32, bias: f32, softcap: f32, head_bias_stride: u32,
  alibi_stride: u32, split_stride: u32, head_count: u32, group_count: u32,
  flags: u32,
}

const PER_HEAD = 1u;         // \`heads\` is filled in
const BIAS_BY_VISIBLE = 2u;

fn is_set(flag: u32) -> bool { return (problem.flags & flag) != 0u; }

// What the per-head inputs and nonpad_kv_seqlen come to for one batch entry and query head.
struct Head { scale: f32, bias: f32, gain: f32, slope: f32, valid: i32, offset: i32, unused0: u32, unused1: u32 }
`;

/** WGSL: sigmoid and tanh whose relative error stays within a few units in the last place. */
export const ACTIVATION = /* wgsl */ `
const LOG2_E = 1.44269502;

// The product with log2(e) is rounded; its remainder, recovered by the first fma, is put back after exp2.
fn exp_of(x: vec4f) -> vec4f {
  let t = x * LOG2_E;
  let remainder = fma(x, vec4f(LOG2_E), -t) + x * 1.92596303e-8;
  return exp2(t) * fma(remainder, vec4f(0.693147181), vec4f(1.0));
}

// Of x given as t = -x log2(e). Below the smallest normal number the weight is 0; NaN stays NaN, which not every exp2 does.
fn sigmoid_of_power(t: vec4f) -> vec4f {
  let w = select(1.0 / (1.0 + exp2(t)), vec4f(0.0), t > vec4f(126.0));
  return select(w, t, is_nan(t));
}

// On the bits: comparisons with NaN may be optimised away.
fn is_nan(x: vec4f) -> vec4<bool> { return (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u); }

// Near 0 a + a^3 p(a^2), p fitted at Chebyshev nodes of a < 0.56 to 5e-9; else 1 - 2 / (exp(2a) + 1), which would cancel there.
fn tanh_of(x: vec4f) -> vec4f {
  let a = min(abs(x), vec4f(10.0));
  let y = a * a;
  let p = fma(y, fma(y, fma(y, fma(y, vec4f(-0.0065484), vec4f(0.02127643)), vec4f(-0.05390407)), vec4f(0.13333087)),
              vec4f(-0.33333332));
  let series = a + a * y * p;
  let large = 1.0 - 2.0 / (exp_of(2.0 * a) + 1.0);
  return sign(x) * select(large, series, a < vec4f(0.55));
}
`;

/**
 * WGSL: bindings 0 to 8, the readers of their rows, and `weights`. `out` holds f32 partial sums when `partial`. When `pairs`, the
 * readers of keys and values, `read_key` and `read_value`, yield two neighbouring vectors of f16 as the words of a vec4u.
 */
export function attentionInterface(layout: ElementLayout, partial: boolean, pairs = false): string {
  const elements = sourceArray(layout);
  const sources = pairs ? 'array<vec4u>' : elements;
  const reader = pairs ? pairReader : rowReader;
  const outLayout: ElementLayout = partial ? { type: 'f32', vectors: true } : layout;
  return `${directives(layout)}${PROBLEM}${ACTIVATION}
@group(0) @binding(0) var<uniform> problem: Problem;
@group(0) @binding(1) var<storage, read> q: ${elements};
@group(0) @binding(2) var<storage, read> k: ${sources};
@group(0) @binding(3) var<storage, read> v: ${sources};
@group(0) @binding(4) var<storage, read> past_key: ${sources};
@group(0) @binding(5) var<storage, read> past_value: ${sources};
@group(0) @binding(6) var<storage, read> mask: array<u32>;
@group(0) @binding(7) var<storage, read> heads: array<Head>;
@group(0) @binding(8) var<storage, read_write> out: ${elementArray(outLayout)};
${rowReader('read_q', 'q', 'problem.head_size', layout)}
${reader('read_fresh_key', 'k', 'problem.head_size', layout)}
${reader('read_fresh_value', 'v', 'problem.value_size', layout)}
${reader('read_past_key', 'past_key', 'problem.head_size', layout)}
${reader('read_past_value', 'past_value', 'problem.value_size', layout)}
${rowWriter('write_out', 'out', partial ? '4u * value_columns() + 4u' : 'problem.value_size', outLayout)}
${readers(pairs ? 'vec4u' : 'vec4f')}${SCORES}`;
}

/** Of keys and values, which come from the past or are new. */
const readers = (type: 'vec4f' | 'vec4u'): string => /* wgsl */ `
fn read_key(b: u32, h: u32, j: u32, at: u32) -> ${type} {
  if (PAST && j < problem.past_length) { return read_past_key(start_of(problem.past_key, b, h, j), at); }
  return read_fresh_key(start_of(problem.k, b, h, j - problem.past_length), at);
}

fn read_value(b: u32, h: u32, j: u32, at: u32) -> ${type} {
  if (PAST && j < problem.past_length) { return read_past_value(start_of(problem.past_value, b, h, j), at); }
  return read_fresh_value(start_of(problem.v, b, h, j - problem.past_length), at);
}
`;

const SCORES = /* wgsl */ `
override MASK: u32;           // 0 none, 1 bool (a byte each), 2 f32, 3 f16
override ALIBI: bool;
override SOFTCAP: bool;
override NORMALIZE: bool;
override PAST: bool;

const EXCLUDED_BITS = 0xff800000u;  // -Inf

struct Row { first: i32, last: i32, position: i32, bias: f32, mask: u32 }

fn value_columns() -> u32 { return (problem.value_size + 3u) / 4u; }

fn start_of(s: Strides, b: u32, h: u32, n: u32) -> u32 { return s.base + b * s.batch + h * s.head + n * s.row; }

fn head_of(b: u32, h: u32) -> Head {
  if (is_set(PER_HEAD)) { return heads[b * problem.query_heads + h]; }
  return Head(problem.scale, problem.bias, 1.0, 0.0, i32(problem.key_length), problem.row_offset, 0u, 0u);
}

// The logarithm of the mantissa is small, so that its absolute error is too.
fn log_of(n: u32) -> f32 {
  let e = firstLeadingBit(n);
  return fma(f32(e), 0.693147181, log(f32(n) / f32(1u << e)));
}

// Row i sees exactly the keys first .. last; none when last < first.
fn row_of(head: Head, b: u32, h: u32, i: u32) -> Row {
  var row = Row(0, head.valid - 1, i32(i) + head.offset, head.bias, 0u);
  row.first = max(0, row.position - problem.left_window);
  row.last = min(row.last, row.position + problem.right_window);
  if (is_set(BIAS_BY_VISIBLE)) { row.bias -= log_of(u32(max(1, row.last - row.first + 1))); }
  if (MASK != 0u) { row.mask = start_of(problem.mask, b, h, i); }
  return row;
}

fn mask_bits(at: u32) -> u32 {
  switch (MASK) {
    case 1u: { return select(EXCLUDED_BITS, 0u, extractBits(mask[at >> 2u], 8u * (at & 3u), 8u) != 0u); }
    case 2u: { return mask[at]; }
    default: { return bitcast<u32>(unpack2x16float(mask[at >> 1u])[at & 1u]); }
  }
}

// What q is multiplied by. Sigmoid wants -log2(e) times its argument; soft-capping comes before that.
fn query_scale(head: Head) -> f32 { return select(-LOG2_E * head.scale, head.scale, SOFTCAP); }

// Weights of four keys of one row that sees them all, from q k scaled by \`query_scale\`.
fn weights_of_seen(scores: vec4f, row: Row, slope: f32, keys: vec4i) -> vec4f {
  var t = scores;
  if (SOFTCAP) { t = -LOG2_E * problem.softcap * tanh_of(t / problem.softcap); }
  t -= LOG2_E * row.bias;
  if (ALIBI) { t += LOG2_E * slope * vec4f(abs(row.position - keys)); }
  if (MASK == 0u) { return sigmoid_of_power(t); }
  let at = row.mask + vec4u(keys) * problem.mask_column;
  let bits = vec4u(mask_bits(at.x), mask_bits(at.y), mask_bits(at.z), mask_bits(at.w));
  let included = bits != vec4u(EXCLUDED_BITS);
  t -= LOG2_E * bitcast<vec4f>(select(vec4u(0u), bits, included));
  return select(vec4f(0.0), sigmoid_of_power(t), included);
}

fn sees(row: Row, keys: vec4i) -> vec4<bool> { return (keys >= vec4i(row.first)) & (keys <= vec4i(row.last)); }

fn weights(scores: vec4f, row: Row, slope: f32, keys: vec4i) -> vec4f {
  return select(vec4f(0.0), weights_of_seen(scores, row, slope, keys), sees(row, keys));
}

// A weight that is not 0; NaN is one, which a comparison need not say.
fn takes_part(weight: f32) -> bool { return (bitcast<u32>(weight) << 1u) != 0u; }

fn has_non_finite(x: vec4f) -> bool {
  return any((bitcast<vec4u>(x) & vec4u(0x7f800000u)) == vec4u(0x7f800000u));
}
`;
