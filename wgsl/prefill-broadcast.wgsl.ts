/**
 * Attention of many query rows for CPUs that emulate a GPU: there an invocation is a lane of a vector register, a read of memory
 * is a read for each lane, and a broadcast within the subgroup is one instruction. So a workgroup is one subgroup, each
 * invocation owns query rows, reads K and V of a key of its own, and gets those of the others by broadcasts.
 */

import { type ElementLayout, unroll } from './shader.js';
import { TILE_PLACE } from './prefill-tile.wgsl.js';
import { attentionInterface } from './score.wgsl.js';

export interface BroadcastTile {
  /** Invocations of a workgroup, which are a subgroup; a multiple of 4. */
  readonly lanes: number;
  /** Query rows of an invocation. */
  readonly rows: number;
  /** Keys of an invocation at a time. */
  readonly keys: number;
  /** Vectors of 4 value columns of a workgroup. */
  readonly valueVectors: number;
}

/** Rows and value columns of a workgroup. */
export function broadcastExtent({ lanes, rows, valueVectors }: BroadcastTile): {
  rows: number;
  valueColumns: number;
} {
  return { rows: lanes * rows, valueColumns: 4 * valueVectors };
}

/** The whole shader; its entry point is `prefill`, its grid (row tiles, heads * value tiles, batch * splits). Needs subgroups. */
export function broadcastShader(layout: ElementLayout, tile: BroadcastTile, partial: boolean): string {
  const { lanes, rows, keys } = tile;
  const eachRow = (piece: (r: number) => string): string => unroll(rows, piece);
  const eachKeyOfLane = (piece: (m: number) => string): string => unroll(keys, piece);
  const eachLane = (piece: (n: number) => string): string => unroll(lanes, piece);
  /** Scores and weights of row r of the invocation, four keys a vector. */
  const score = (r: number, m: number, n: number): string => {
    const key = m * lanes + n;
    return `s${r}_${key >> 2}[${key & 3}]`;
  };
  const eachQuad = (piece: (r: number, u: number) => string): string =>
    eachRow((r) => unroll((keys * lanes) / 4, (u) => piece(r, u)));
  const sumOf = (r: number): string => `sums[c * ROWS + ${r}u]`;
  const keyOf = (m: number): string => `min(tile_key + ${m * lanes}u + lane, key_end - 1u)`;
  const addValues = (add: (r: number, weight: string) => string): string => `
      for (var c = 0u; c < columns; c++) {
        ${eachRow((r) => `var o${r} = ${sumOf(r)};`)}
        ${eachKeyOfLane(
          (m) => `{ let x = read_value(b, hkv, ${keyOf(m)}, first_vector + c);
          ${eachLane((n) => `{ let v = subgroupBroadcast(x, ${n}u); ${eachRow((r) => add(r, score(r, m, n)))} }`)} }`,
        )}
        ${eachRow((r) => `${sumOf(r)} = o${r};`)}
      }`;
  return /* wgsl */ `enable subgroups;
diagnostic(off, subgroup_uniformity);  // a subgroup is the workgroup, and decides together
${attentionInterface(layout, partial)}
const LANES = ${lanes}u;
const ROWS = ${rows}u;
const TILE_ROWS = LANES * ROWS;
const TILE_KEYS = ${keys}u * LANES;
const VALUE_VECTORS = ${tile.valueVectors}u;

@compute @workgroup_size(LANES)
fn prefill(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(subgroup_invocation_id) lane: u32) {
${TILE_PLACE}  let depth_vectors = (problem.head_size + 3u) / 4u;
  let columns = min(VALUE_VECTORS, value_columns() - first_vector);

  ${eachRow(
    (r) => `let i${r} = first_row + ${r}u * LANES + lane;
  var row${r} = row_of(head, b, h, min(i${r}, end_row - 1u));
  row${r}.last = select(-1, min(row${r}.last, i32(key_end) - 1), i${r} < end_row);
  let q_start${r} = start_of(problem.q, b, h, min(i${r}, end_row - 1u));
  var sum${r} = 0.0;`,
  )}
  // Of the rows of this invocation, as [c4][row].
  var sums: array<vec4f, VALUE_VECTORS * ROWS>;

  // 0 * NaN is NaN: when anything but a finite number comes out, everything is done again, leaving out weights of 0.
  var careful = false;
  loop {
    for (var c = 0u; c < columns; c++) { ${eachRow((r) => `${sumOf(r)} = vec4f();`)} }
    ${eachRow((r) => `sum${r} = 0.0;`)}
    for (var tile_key = key_begin; tile_key < key_end; tile_key += TILE_KEYS) {
      ${eachQuad((r, u) => `var s${r}_${u} = vec4f();`)}
      for (var d = 0u; d < depth_vectors; d++) {
        ${eachRow((r) => `let q${r} = read_q(q_start${r}, d);`)}
        ${eachKeyOfLane(
          (m) => `{ let x = read_key(b, hkv, ${keyOf(m)}, d);
          ${eachLane(
            (n) =>
              `{ let k = subgroupBroadcast(x, ${n}u); ${eachRow((r) => unroll(4, (e) => `${score(r, m, n)} += q${r}[${e}] * k[${e}];`))} }`,
          )} }`,
        )}
      }
      // Windows move on from row to row, so that the outer rows decide for all.
      let all_seen = bottom.first <= i32(tile_key) && top.last >= i32(tile_key + TILE_KEYS) - 1 && tile_key + TILE_KEYS <= key_end;
      ${eachQuad(
        (r, u) => `{ let keys = vec4i(i32(tile_key) + ${4 * u}) + vec4i(0, 1, 2, 3);
        s${r}_${u} = weights_of_seen(scale * s${r}_${u}, row${r}, head.slope, keys);
        if (!all_seen) { s${r}_${u} = select(vec4f(), s${r}_${u}, sees(row${r}, keys)); }
        if (NORMALIZE) { sum${r} += dot(s${r}_${u}, vec4f(1.0)); } }`,
      )}
      if (careful) { ${addValues((r, w) => `if (takes_part(${w})) { o${r} += ${w} * v; }`)} }
      else { ${addValues((r, w) => `o${r} += ${w} * v;`)} }
    }
    if (careful) { break; }
    for (var c = 0u; c < columns; c++) {
      careful = careful || ${Array.from({ length: rows }, (_, r) => `has_non_finite(${sumOf(r)})`).join(' || ')};
    }
    careful = subgroupAny(careful);
    if (!careful) { break; }
  }

  ${eachRow(
    (r) => `if (i${r} < end_row) {
    let at = start_of(problem.out, b, h, i${r})${partial ? ' + split * problem.split_stride' : ''};
    ${
      partial
        ? `let factor = 1.0; if (first_vector == 0u) { write_out(at, value_columns(), vec4f(sum${r})); }`
        : `var factor = head.gain; if (NORMALIZE) { factor = select(factor / sum${r}, 0.0, sum${r} == 0.0); }`
    }
    for (var c = 0u; c < columns; c++) { write_out(at, first_vector + c, factor * ${sumOf(r)}); }
  }`,
  )}
}
`;
}
