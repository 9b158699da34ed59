/**
 * Attention of a few query rows: bound by reading K and V, which every workgroup reads once for all rows that share a kv
 * head. The keys are split over workgroups; sigmoid weights are simply added, so that the parts need no rescaling.
 */

import { type ElementLayout, list, unroll } from './shader.js';
import { attentionInterface } from './score.wgsl.js';

export interface DecodeTile {
  /** Invocations; a multiple of 32. */
  readonly threads: number;
  /** Rows of a workgroup: query rows times query heads of one kv head; 1, 2, 4 or 8. */
  readonly rows: number;
  /** Keys times rows that go through workgroup memory at a time; a multiple of `threads` at least. */
  readonly weights: number;
  /** Rows of K or V that an invocation reads before it uses the first, at most. */
  readonly batch: number;
  /** Neighbouring invocations that read a row of V; divides `threads`. */
  readonly valueLanes: number;
  /** A read of K or V is two neighbouring vectors of f16, which needs head sizes that are multiples of 8. */
  readonly pairs: boolean;
}

/** Neighbouring invocations that share the dot products of a key. */
const TEAM = 8;
/** Value columns of a workgroup, its workgroup memory in bytes, and the granularity of a split in keys. */
export function decodeExtent(tile: DecodeTile): {
  valueColumns: number;
  workgroupBytes: number;
  tileKeys: number;
} {
  const partials = tile.weights * (TEAM + 1) * 4;
  return {
    valueColumns: (tile.pairs ? 8 : 4) * tile.valueLanes,
    workgroupBytes: Math.max(partials, 16 * tile.threads) + tile.weights * 4,
    tileKeys: tile.weights / tile.rows,
  };
}

/** The whole shader; its entry point is `decode`, its grid (row tiles, kv heads * value tiles, batch * splits). */
export function decodeShader(layout: ElementLayout, tile: DecodeTile, partial: boolean): string {
  const { threads, rows, weights, valueLanes, pairs } = tile;
  /** The vectors of one read, each with its accumulator. */
  const parts = pairs ? 2 : 1;
  const eachPart = (piece: (part: number) => string): string => unroll(parts, piece);
  const vectorOf = (read: string, part: number): string =>
    pairs ? `vec4f(unpack2x16float(${read}[${2 * part}]), unpack2x16float(${read}[${2 * part + 1}]))` : read;
  const eachRow = (piece: (r: number) => string): string => unroll(rows, piece);
  const tileKeys = weights / rows;
  const eachKey = (piece: (n: number) => string): string => unroll(keyBatch, piece);
  const eachValue = (piece: (n: number) => string): string => unroll(valueBatch, piece);
  const keyBatch = Math.min(tile.batch, tileKeys / (threads / TEAM));
  const valueBatch = Math.min(tile.batch, tileKeys / (threads / valueLanes));
  const scratch = Math.max(weights * (TEAM + 1), 4 * threads);
  const valueAt = (key: string, n: number): string =>
    `read_value(b, hkv, min(tile_key + ${key} + ${n}u * VALUE_GROUPS, key_end - 1u), min(column, value_columns() - PARTS) / PARTS)`;
  return /* wgsl */ `${attentionInterface(layout, partial, pairs)}
const THREADS = ${threads}u;
const ROWS = ${rows}u;
const TEAM = ${TEAM}u;
const TEAMS = THREADS / TEAM;
const VALUE_LANES = ${valueLanes}u;
const PARTS = ${parts}u;
const VALUE_GROUPS = THREADS / VALUE_LANES;
const TILE_KEYS = ${tileKeys}u;
const KEY_BATCH = ${keyBatch}u;
const VALUE_BATCH = ${valueBatch}u;

// Partial dot products as [key][row][team member], later partial sums of Y as [value group][lane][4].
var<workgroup> scratch: array<f32, ${scratch}>;
var<workgroup> tile_weights: array<f32, ${weights}>;

@compute @workgroup_size(THREADS)
fn decode(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let b = problem.first_batch + group.z / problem.splits;
  let split = group.z % problem.splits;
  let hkv = problem.first_head + group.y % problem.head_count;
  let first_vector = group.y / problem.head_count * VALUE_LANES * PARTS;
  // Row r of the kv head is query row r % count of its query head r / count.
  let count = problem.row_end - problem.row_begin;
  let all_rows = count * problem.group_count;
  let first_query_head = hkv * problem.group + problem.group_begin;
  let first_row = group.x * ROWS;
  let depth_vectors = (problem.head_size + 3u) / 4u;

  // The keys that some row sees, and this split's share of them.
  var low = i32(problem.key_end);
  var high = i32(problem.key_begin);
  for (var r = first_row; r < min(first_row + ROWS, all_rows); r++) {
    let h = first_query_head + r / count;
    let row = row_of(head_of(b, h), b, h, problem.row_begin + r % count);
    low = min(low, row.first);
    high = max(high, row.last + 1);
  }
  let key_low = max(problem.key_begin, u32(low));
  let key_high = max(min(problem.key_end, u32(high)), key_low);
  let tiles = (key_high - key_low + TILE_KEYS - 1u) / TILE_KEYS;
  let share = (tiles + problem.splits - 1u) / problem.splits * TILE_KEYS;
  let key_begin = key_low + split * share;
  let key_end = min(key_begin + share, key_high);

  // Q is read along with K, from the cache: to wait for it first would cost as much as a read of K.
  ${eachRow(
    (r) => `let r${r} = min(first_row + ${r}u, all_rows - 1u);
  let q_start${r} = start_of(problem.q, b, first_query_head + r${r} / count, problem.row_begin + r${r} % count);`,
  )}

  // The row whose weights this invocation computes: 4 keys of it at a time.
  let weight_row = thread % ROWS;
  let my_row = min(first_row + weight_row, all_rows - 1u);
  let my_h = first_query_head + my_row / count;
  let my_head = head_of(b, my_h);
  var row = row_of(my_head, b, my_h, problem.row_begin + my_row % count);
  row.last = min(row.last, i32(key_end) - 1);
  var weight_sum = 0.0;

  let member = thread % TEAM;
  let lane = thread % VALUE_LANES;
  let column = first_vector + lane * PARTS;
  ${eachRow((r) => eachPart((p) => `var o${r}_${p} = vec4f();`))}

  for (var tile_key = key_begin; tile_key < key_end; tile_key += TILE_KEYS) {
    let tile_end = min(TILE_KEYS, key_end - tile_key);
    // Several keys at a time, so that their reads overlap; keys past the end are read as the last, with a weight of 0.
    for (var step = 0u; step < TILE_KEYS; step += KEY_BATCH * TEAMS) {
      let key = step + thread / TEAM;
      if (step >= tile_end) { continue; }
      ${eachKey((n) => eachRow((r) => `var s${n}_${r} = 0.0;`))}
      for (var d = member; d < depth_vectors / PARTS; d += TEAM) {
        ${eachKey((n) => `let x${n} = read_key(b, hkv, min(tile_key + key + ${n}u * TEAMS, key_end - 1u), d);`)}
        ${eachRow((r) =>
          eachPart(
            (p) =>
              `{ let q = read_q(q_start${r}, d * PARTS + ${p}u); ${eachKey((n) => `s${n}_${r} += dot(q, ${vectorOf(`x${n}`, p)});`)} }`,
          ),
        )}
      }
      ${eachKey((n) => eachRow((r) => `scratch[((key + ${n}u * TEAMS) * ROWS + ${r}u) * (TEAM + 1u) + member] = s${n}_${r};`))}
    }
    // The first values are on their way while the weights are computed.
    ${eachValue((n) => `var x${n} = ${valueAt(`thread / VALUE_LANES`, n)};`)}
    workgroupBarrier();
    for (var t = thread; t < TILE_KEYS / 4u * ROWS; t += THREADS) {
      let key = t / ROWS * 4u;
      var s = vec4f();
      for (var e = 0u; e < 4u; e++) {
        let at = ((key + e) * ROWS + weight_row) * (TEAM + 1u);
        s[e] = ${list(TEAM, (n) => `scratch[at + ${n}u]`).replaceAll(',', ' +')};
      }
      let w = weights(query_scale(my_head) * s, row, my_head.slope, vec4i(i32(tile_key + key)) + vec4i(0, 1, 2, 3));
      weight_sum += dot(w, vec4f(1.0));
      for (var e = 0u; e < 4u; e++) { tile_weights[(key + e) * ROWS + weight_row] = w[e]; }
    }
    workgroupBarrier();
    if (column < value_columns()) {
      for (var step = 0u; step < TILE_KEYS; step += VALUE_BATCH * VALUE_GROUPS) {
        if (step >= tile_end) { break; }
        let key = step + thread / VALUE_LANES;
        // A key of weight 0 takes no part, not even when its value is NaN.
        ${eachValue((n) =>
          eachRow(
            (r) => `{ let w = tile_weights[(key + ${n}u * VALUE_GROUPS) * ROWS + ${r}u];
            if (takes_part(w)) { ${eachPart((p) => `o${r}_${p} += w * ${vectorOf(`x${n}`, p)};`)} } }`,
          ),
        )}
        if (step + VALUE_BATCH * VALUE_GROUPS < tile_end) {
          ${eachValue((n) => `x${n} = ${valueAt('key + VALUE_BATCH * VALUE_GROUPS', n)};`)}
        }
      }
    }
  }

  // The parts of the value groups are added by the first lanes, which also write.
  var totals: array<f32, ROWS>;
  if (NORMALIZE) {
    workgroupBarrier();
    scratch[thread] = weight_sum;
    workgroupBarrier();
    for (var n = 0u; n < THREADS; n++) { totals[n % ROWS] += scratch[n]; }
  }
  ${eachRow((r) =>
    eachPart(
      (p) => `workgroupBarrier();
  ${unroll(4, (e) => `scratch[thread * 4u + ${e}u] = o${r}_${p}[${e}];`)}
  workgroupBarrier();
  if (thread < VALUE_LANES && first_row + ${r}u < all_rows) {
    let r = first_row + ${r}u;
    let h = first_query_head + r / count;
    let at = start_of(problem.out, b, h, problem.row_begin + r % count)${partial ? ' + split * problem.split_stride' : ''};
    var total = vec4f();
    for (var n = lane; n < THREADS; n += VALUE_LANES) {
      total += vec4f(${list(4, (e) => `scratch[n * 4u + ${e}u]`)});
    }
    ${
      partial
        ? `let factor = 1.0; if (lane == 0u && first_vector == 0u) { write_out(at, value_columns(), vec4f(totals[${r}])); }`
        : `var factor = head_of(b, h).gain; if (NORMALIZE) { factor = select(factor / totals[${r}], 0.0, totals[${r}] == 0.0); }`
    }
    if (column < value_columns()) { write_out(at, column + ${p}u, factor * total); }
  }`,
    ),
  )}
}
`;
}
