/**
 * The small kernels around attention: per-head parameters, the sum of split keys, and the present keys and values.
 */

import {
  directives,
  elementArray,
  type ElementLayout,
  rowReader,
  rowWriter,
  sourceArray,
  unroll,
} from './shader.js';
import { PROBLEM } from './score.wgsl.js';

/** Invocations of a workgroup of every kernel of this file. */
export const ROW_KERNEL_THREADS = 64;
/** Parts of a split row that are read before the first is added, so that their latencies overlap. */
const PARTS_AT_ONCE = 16;

/**
 * Entry point `heads`, one invocation for each (batch entry, query head): gathers nonpad_kv_seqlen, head_bias, head_scale,
 * head_gain and alibi_slopes. A nonpad_kv_seqlen outside [0, Nk] cannot be reported from here and is clamped.
 */
export const HEADS_SHADER = /* wgsl */ `${PROBLEM}
override HAS_NONPAD: bool;
override HAS_HEAD_BIAS: bool;
override HAS_HEAD_SCALE: bool;
override HAS_HEAD_GAIN: bool;
override ALIBI: bool;
override OFFSET_BY_NONPAD: bool;
override BIAS_BY_VALID: bool;

@group(0) @binding(0) var<uniform> problem: Problem;
@group(0) @binding(1) var<storage, read> nonpad: array<vec2u>;  // int64: low and high word
@group(0) @binding(2) var<storage, read> head_bias: array<f32>;
@group(0) @binding(3) var<storage, read> head_scale: array<f32>;
@group(0) @binding(4) var<storage, read> head_gain: array<f32>;
@group(0) @binding(5) var<storage, read> alibi_slopes: array<f32>;
@group(0) @binding(6) var<storage, read_write> heads: array<Head>;

@compute @workgroup_size(${ROW_KERNEL_THREADS})
fn gather_heads(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= problem.rows) { return; }
  let b = id.x / problem.query_heads;
  let h = id.x % problem.query_heads;
  var head = Head(problem.scale, problem.bias, 1.0, 0.0, i32(problem.key_length), problem.row_offset, 0u, 0u);
  if (HAS_NONPAD) {
    let length = nonpad[b];
    head.valid = i32(select(0u, min(length.x, problem.key_length), (length.y >> 31u) == 0u));
    if (OFFSET_BY_NONPAD) { head.offset = head.valid - i32(problem.query_length); }
    if (BIAS_BY_VALID) {
      let n = max(u32(head.valid), 1u);
      let e = firstLeadingBit(n);
      head.bias -= fma(f32(e), 0.693147181, log(f32(n) / f32(1u << e)));
    }
  }
  if (HAS_HEAD_BIAS) { head.bias += head_bias[b * problem.head_bias_stride + h]; }
  if (HAS_HEAD_SCALE) { head.scale *= head_scale[h]; }
  if (HAS_HEAD_GAIN) { head.gain = head_gain[h]; }
  if (ALIBI) { head.slope = alibi_slopes[b * problem.alibi_stride + h]; }
  heads[id.x] = head;
}
`;

/**
 * Entry point `combine`, one invocation for each vector of a row of Y: adds the parts of split keys. They lie as
 * `[split][b][h][i]` over the batch entries, heads and rows of the problem; a row is its value vectors and one vector whose
 * first element is the sum of the weights.
 */
export function combineShader(layout: ElementLayout): string {
  return /* wgsl */ `${directives(layout)}${PROBLEM}
override NORMALIZE: bool;
@group(0) @binding(0) var<uniform> problem: Problem;
@group(0) @binding(1) var<storage, read> parts: array<vec4f>;
@group(0) @binding(2) var<storage, read> heads: array<Head>;
@group(0) @binding(3) var<storage, read_write> out: ${elementArray(layout)};
${rowWriter('write_out', 'out', 'problem.value_size', layout)}

@compute @workgroup_size(${ROW_KERNEL_THREADS})
fn combine(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let columns = (problem.value_size + 3u) / 4u;
  let index = id.x + id.y * groups.x * ${ROW_KERNEL_THREADS}u;
  if (index >= problem.rows * columns) { return; }
  let column = index % columns;
  let row = index / columns;
  let count = problem.row_end - problem.row_begin;
  let i = problem.row_begin + row % count;
  let h = problem.first_head + row / count % problem.head_count;
  let b = problem.first_batch + row / count / problem.head_count;
  var total = vec4f();
  var weight = 0.0;
  for (var first = 0u; first < problem.splits; first += ${PARTS_AT_ONCE}u) {
    ${unroll(
      PARTS_AT_ONCE,
      (n) => `let at${n} = (min(first + ${n}u, problem.splits - 1u) * problem.rows + row) * (columns + 1u);
    let x${n} = parts[at${n} + column];
    let w${n} = select(0.0, parts[at${n} + columns].x, NORMALIZE);`,
    )}
    ${unroll(
      PARTS_AT_ONCE,
      (n) => `if (first + ${n}u < problem.splits) { total += x${n}; weight += w${n}; }`,
    )}
  }
  var factor = 1.0;
  if (is_set(PER_HEAD)) { factor = heads[b * problem.query_heads + h].gain; }
  if (NORMALIZE) { factor = select(factor / weight, 0.0, weight == 0.0); }
  let out_row = problem.out.base + b * problem.out.batch + h * problem.out.head + i * problem.out.row;
  write_out(out_row, column, factor * total);
}
`;
}

/**
 * Entry point `append`, one invocation for each vector of a row: `[B,Hkv,Nk,size]` from the past and the new rows. The
 * description stands in the fields of K whichever tensor is appended to: `k` new rows, `past_key` past rows.
 */
export function appendShader(layout: ElementLayout): string {
  return /* wgsl */ `${directives(layout)}${PROBLEM}
@group(0) @binding(0) var<uniform> problem: Problem;
@group(0) @binding(1) var<storage, read> fresh: ${sourceArray(layout)};
@group(0) @binding(2) var<storage, read> past: ${sourceArray(layout)};
@group(0) @binding(3) var<storage, read_write> out: ${elementArray(layout)};
${rowReader('read_fresh', 'fresh', 'problem.head_size', layout)}
${rowReader('read_past', 'past', 'problem.head_size', layout)}
${rowWriter('write_out', 'out', 'problem.head_size', layout)}

@compute @workgroup_size(${ROW_KERNEL_THREADS})
fn append(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let columns = (problem.head_size + 3u) / 4u;
  let index = id.x + id.y * groups.x * ${ROW_KERNEL_THREADS}u;
  if (index >= problem.rows * columns) { return; }
  let column = index % columns;
  let row = index / columns;
  let count = problem.key_end - problem.key_begin;
  let j = problem.key_begin + row % count;
  let h = problem.first_head + row / count % problem.head_count;
  let b = problem.first_batch + row / count / problem.head_count;
  let at = problem.out.base + b * problem.out.batch + h * problem.out.head + j * problem.out.row;
  if (j < problem.past_length) {
    let source = problem.past_key.base + b * problem.past_key.batch + h * problem.past_key.head + j * problem.past_key.row;
    write_out(at, column, read_past(source, column));
  } else {
    let source = problem.k.base + b * problem.k.batch + h * problem.k.head + (j - problem.past_length) * problem.k.row;
    write_out(at, column, read_fresh(source, column));
  }
}
`;
}
