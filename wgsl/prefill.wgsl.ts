/**
 * Attention of many query rows. A workgroup owns a tile of rows and walks over the keys: a register-tiled product of the
 * rows with a tile of keys, their weights, and a register-tiled product of the weights with the values. Sigmoid weights
 * need no running maximum, so that the accumulators are only ever added to.
 */

import { type ElementLayout, list, unroll } from './shader.js';
import { moved, repeatUnlessFinite, SPOILED, TILE_PLACE } from './prefill-tile.wgsl.js';
import { attentionInterface } from './score.wgsl.js';

/** The tile of one workgroup of `rowThreads * columnThreads` invocations. */
export interface PrefillTile {
  readonly rowThreads: number;
  readonly columnThreads: number;
  /** Query rows of an invocation; a multiple of 4. */
  readonly rows: number;
  /** Keys of an invocation; a multiple of 4. */
  readonly keys: number;
  /** Vectors of 4 value columns of an invocation. */
  readonly valueVectors: number;
  /** Vectors of 4 head dimensions of Q and K that are in workgroup memory at a time. */
  readonly depthVectors: number;
  /** Values (keys) that are in workgroup memory at a time; divides the keys of the tile. */
  readonly valueKeys: number;
}

/** Rows, keys and value columns of a workgroup, and its workgroup memory in bytes. */
export function prefillExtent(tile: PrefillTile): {
  rows: number;
  keys: number;
  valueColumns: number;
  workgroupBytes: number;
} {
  const rows = tile.rowThreads * tile.rows;
  const keys = tile.columnThreads * tile.keys;
  const valueVectors = tile.columnThreads * tile.valueVectors;
  const workgroupBytes = 16 * poolVectors(tile) + ROW_BYTES * rows + 16;
  return { rows, keys, valueColumns: 4 * valueVectors, workgroupBytes };
}

/** Of the WGSL struct Row. */
const ROW_BYTES = 20;

function poolVectors(tile: PrefillTile): number {
  const rows = tile.rowThreads * tile.rows;
  const keys = tile.columnThreads * tile.keys;
  const queries = tile.depthVectors * (rows + 1);
  const scores = tile.depthVectors * (keys + 1);
  const values = (keys * rows) / 4 + tile.valueKeys * tile.columnThreads * tile.valueVectors;
  const sums = (tile.columnThreads * rows) / 4;
  return Math.max(queries + scores, values, sums);
}

/** The whole shader; its entry point is `prefill`, its grid (row tiles, heads * value tiles, batch * splits). */
export function prefillShader(layout: ElementLayout, tile: PrefillTile, partial: boolean): string {
  const { rows, keys, valueVectors } = tile;
  const rowQuads = rows / 4;
  const keyQuads = keys / 4;
  const threads = tile.rowThreads * tile.columnThreads;
  const extent = prefillExtent(tile);
  const eachRow = (piece: (r: number) => string): string => unroll(rows, piece);
  const eachScore = (piece: (r: number, m: number) => string): string =>
    eachRow((r) => unroll(keyQuads, (m) => piece(r, m)));
  const eachOutput = (piece: (r: number, c: number) => string): string =>
    eachRow((r) => unroll(valueVectors, (c) => piece(r, c)));
  const weightsAt = (u: number): string => `pool[(key * ROW_QUADS + ${u}u) * ROW_THREADS + ty]`;
  // What lies past the last row, key or column is replaced by the last one: its weights are 0, its results not written.
  const loadQueries = moved(
    extent.rows * tile.depthVectors,
    threads,
    (n, t) => `let d${n} = d_start + ${t} % DEPTH;
      var x${n} = read_q(start_of(problem.q, b, h, min(first_row + ${t} / DEPTH, end_row - 1u)), min(d${n}, depth_vectors - 1u));
      x${n} = select(vec4f(), scale * x${n}, d${n} < depth_vectors);`,
    (n) => `pool[t${n} % DEPTH * Q_STRIDE + t${n} / DEPTH] = x${n};`,
  );
  const loadKeys = moved(
    (extent.keys / 4) * tile.depthVectors,
    threads,
    (n, t) => `let d${n} = d_start + ${t} % DEPTH;
      let j${n} = tile_key + ${t} / DEPTH * 4u;
      ${unroll(4, (e) => `let k${n}_${e} = read_key(b, hkv, min(j${n} + ${e}u, key_end - 1u), min(d${n}, depth_vectors - 1u));`)}`,
    (n) => `{ var x = transpose(mat4x4f(${list(4, (e) => `k${n}_${e}`)}));
      if (d${n} >= depth_vectors) { x = mat4x4f(); }
      let at = K_START + t${n} % DEPTH * K_STRIDE + t${n} / DEPTH;
      ${unroll(4, (e) => `pool[at + ${e}u * KEY_QUADS] = x[${e}];`)} }`,
  );
  const loadValues = moved(
    (tile.valueKeys * extent.valueColumns) / 4,
    threads,
    (n, t) =>
      `let x${n} = read_value(b, hkv, min(tile_key + v_start + ${t} / VALUE_VECTORS, key_end - 1u), min(first_vector + ${t} % VALUE_VECTORS, value_columns() - 1u));`,
    (n) => `pool[VALUE_START + t${n}] = x${n};`,
  );
  return /* wgsl */ `${attentionInterface(layout, partial)}
const ROW_THREADS = ${tile.rowThreads}u;
const COLUMN_THREADS = ${tile.columnThreads}u;
const THREADS = ROW_THREADS * COLUMN_THREADS;
const ROW_QUADS = ${rowQuads}u;
const TILE_ROWS = ROW_THREADS * 4u * ROW_QUADS;
const KEY_QUADS = ${keyQuads}u * COLUMN_THREADS;
const TILE_KEYS = 4u * KEY_QUADS;
const DEPTH = ${tile.depthVectors}u;
const VALUE_KEYS = ${tile.valueKeys}u;
const VALUE_VECTORS = ${valueVectors}u * COLUMN_THREADS;
// Odd strides between head dimensions keep the writes of a tile apart in the memory banks.
const Q_STRIDE = TILE_ROWS + 1u;
const K_STRIDE = TILE_KEYS + 1u;
const K_START = DEPTH * Q_STRIDE;
const VALUE_START = TILE_KEYS * TILE_ROWS / 4u;

// First Q as [d4][row] and K as [d4][d][key4]; then the weights as [key][row4] and V as [key][d4].
var<workgroup> pool: array<vec4f, ${poolVectors(tile)}>;
var<workgroup> tile_rows: array<Row, ${extent.rows}>;
${SPOILED}
@compute @workgroup_size(THREADS)
fn prefill(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let ty = thread % ROW_THREADS;
  let tx = thread / ROW_THREADS;
${TILE_PLACE}  let depth_vectors = (problem.head_size + 3u) / 4u;

  for (var t = thread; t < TILE_ROWS; t += THREADS) {
    var row = row_of(head, b, h, first_row + t);
    row.last = select(-1, min(row.last, i32(key_end) - 1), first_row + t < end_row);
    tile_rows[t] = row;
  }
  ${eachOutput((r, c) => `var o${r}_${c} = vec4f();`)}
  ${eachRow((r) => `var sum${r} = 0.0;`)}

  // 0 * NaN is NaN: when anything but a finite number comes out, everything is done again, leaving out weights of 0.
  var careful = false;
  loop {
    for (var tile_key = key_begin; tile_key < key_end; tile_key += TILE_KEYS) {
      ${eachScore((r, m) => `var s${r}_${m} = vec4f();`)}
      for (var d_start = 0u; d_start < depth_vectors; d_start += DEPTH) {
        workgroupBarrier();
        ${loadQueries}
        ${loadKeys}
        workgroupBarrier();
        // Bounds that are constants spare the hot loops the clamping of their indices.
        for (var d4 = 0u; d4 < DEPTH; d4++) {
          let k_at = K_START + d4 * K_STRIDE + tx;
          let q_at = d4 * Q_STRIDE + ty;
          ${eachRow((r) => `let q${r} = pool[q_at + ${r}u * ROW_THREADS];`)}
          ${unroll(4, (e) =>
            unroll(
              keyQuads,
              (m) => `{ let k = pool[k_at + ${e}u * KEY_QUADS + ${m}u * COLUMN_THREADS];
              ${eachRow((r) => `s${r}_${m} += q${r}[${e}] * k;`)} }`,
            ),
          )}
        }
      }
      // Windows move on from row to row, so that the outer rows decide for all.
      let all_seen = bottom.first <= i32(tile_key) && top.last >= i32(tile_key + TILE_KEYS) - 1 && tile_key + TILE_KEYS <= key_end;
      ${eachRow(
        (r) => `{ let row = tile_rows[ty + ${r}u * ROW_THREADS];
        ${unroll(
          keyQuads,
          (m) => `{ let keys = vec4i(i32(tile_key + 4u * (tx + ${m}u * COLUMN_THREADS))) + vec4i(0, 1, 2, 3);
          s${r}_${m} = weights_of_seen(s${r}_${m}, row, head.slope, keys);
          if (!all_seen) { s${r}_${m} = select(vec4f(), s${r}_${m}, sees(row, keys)); } }`,
        )} }`,
      )}
      if (NORMALIZE) {
        ${eachScore((r, m) => `sum${r} += dot(s${r}_${m}, vec4f(1.0));`)}
      }
      workgroupBarrier();
      ${unroll(keyQuads, (m) =>
        unroll(
          4,
          (e) => `{ let key = 4u * (tx + ${m}u * COLUMN_THREADS) + ${e}u;
          ${unroll(rowQuads, (u) => `${weightsAt(u)} = vec4f(${list(4, (r) => `s${4 * u + r}_${m}[${e}]`)});`)} }`,
        ),
      )}
      let tile_end = min(TILE_KEYS, key_end - tile_key);
      for (var chunk = 0u; chunk < TILE_KEYS / VALUE_KEYS; chunk++) {
        let v_start = chunk * VALUE_KEYS;
        if (v_start >= tile_end) { continue; }
        if (v_start > 0u) { workgroupBarrier(); }
        ${loadValues}
        workgroupBarrier();
        if (careful) {
          for (var n = 0u; n < VALUE_KEYS; n++) {
            let key = v_start + n;
            let v_at = VALUE_START + n * VALUE_VECTORS + tx;
            ${unroll(rowQuads, (u) => `let w${u} = ${weightsAt(u)};`)}
            ${unroll(valueVectors, (c) => `let v${c} = pool[v_at + ${c}u * COLUMN_THREADS];`)}
            ${eachRow((r) => {
              const w = `w${r >> 2}[${r & 3}]`;
              return `if (takes_part(${w})) { ${unroll(valueVectors, (c) => `o${r}_${c} += ${w} * v${c};`)} }`;
            })}
          }
        } else {
          for (var n = 0u; n < VALUE_KEYS; n++) {
            let key = v_start + n;
            let v_at = VALUE_START + n * VALUE_VECTORS + tx;
            ${unroll(rowQuads, (u) => `let w${u} = ${weightsAt(u)};`)}
            ${unroll(
              valueVectors,
              (c) => `{ let v = pool[v_at + ${c}u * COLUMN_THREADS];
              ${eachRow((r) => `o${r}_${c} += w${r >> 2}[${r & 3}] * v;`)} }`,
            )}
          }
        }
      }
    }
    if (careful) { break; }
    ${repeatUnlessFinite(Array.from({ length: rows * valueVectors }, (_, n) => `o${Math.floor(n / valueVectors)}_${n % valueVectors}`))}
    ${eachOutput((r, c) => `o${r}_${c} = vec4f();`)}
    ${eachRow((r) => `sum${r} = 0.0;`)}
  }

  if (NORMALIZE) {
    workgroupBarrier();
    ${unroll(rowQuads, (u) => `pool[(${u}u * COLUMN_THREADS + tx) * ROW_THREADS + ty] = vec4f(${list(4, (r) => `sum${4 * u + r}`)});`)}
    workgroupBarrier();
    ${unroll(
      rowQuads,
      (u) => `{ var total = vec4f();
      for (var n = 0u; n < COLUMN_THREADS; n++) { total += pool[(${u}u * COLUMN_THREADS + n) * ROW_THREADS + ty]; }
      ${unroll(4, (r) => `sum${4 * u + r} = total[${r}];`)} }`,
    )}
  }
  ${eachRow((r) => {
    const i = `first_row + ty + ${r}u * ROW_THREADS`;
    return `if (${i} < end_row) { let at = start_of(problem.out, b, h, ${i})${partial ? ' + split * problem.split_stride' : ''};
    ${
      partial
        ? `let factor = 1.0; if (tx == 0u && first_vector == 0u) { write_out(at, value_columns(), vec4f(sum${r})); }`
        : `var factor = head.gain; if (NORMALIZE) { factor = select(factor / sum${r}, 0.0, sum${r} == 0.0); }`
    }
    ${unroll(valueVectors, (c) => {
      const column = `first_vector + tx + ${c}u * COLUMN_THREADS`;
      return `if (${column} < value_columns()) { write_out(at, ${column}, factor * o${r}_${c}); }`;
    })} }`;
  })}
}
`;
}
