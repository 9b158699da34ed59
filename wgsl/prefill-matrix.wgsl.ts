/**
 * Attention of many float16 query rows with the matrix instructions of subgroups (`chromium-experimental-subgroup-matrix`): both
 * products are 16 x 16 x 16 multiplications of float16 into float32. The scores pass through workgroup memory on their way to
 * weights, because the elements of a matrix cannot be reached where it is. Weights are rounded to float16, so that normalised
 * attention, whose weights may all be tiny, is not done here.
 */

import { type ElementLayout, unroll } from './shader.js';
import { moved, repeatUnlessFinite, SPOILED, TILE_PLACE } from './prefill-tile.wgsl.js';
import { attentionInterface } from './score.wgsl.js';

/** The tile of one workgroup. */
export interface MatrixTile {
  /** Subgroups, each with rows of its own. */
  readonly subgroups: number;
  /** Blocks of 16 query rows of a subgroup. */
  readonly rowBlocks: number;
  /** Blocks of 16 keys that are in workgroup memory at a time. */
  readonly keyBlocks: number;
  /** Blocks of 16 head dimensions of Q and K; all of them. */
  readonly depthBlocks: number;
  /** Blocks of 16 value columns of a workgroup. */
  readonly valueBlocks: number;
}

/** Rows and columns of a matrix that an instruction takes. */
export const BLOCK = 16;
/** Invocations of a subgroup. */
export const SUBGROUP = 32;
const BLOCK_VECTORS = BLOCK / 4;
/** Vectors between rows in workgroup memory: one or two more than they have keep the rows of a block apart in the memory banks. */
const halfPitch = (blocks: number): number => BLOCK_VECTORS * blocks + 2;
const floatPitch = (blocks: number): number => BLOCK_VECTORS * blocks + 1;

/** Rows, keys and value columns of a workgroup, and its workgroup memory in bytes. */
export function matrixExtent(tile: MatrixTile): {
  rows: number;
  keys: number;
  valueColumns: number;
  workgroupBytes: number;
} {
  const { subgroups, rowBlocks, keyBlocks, valueBlocks } = tile;
  const rows = subgroups * rowBlocks * BLOCK;
  return {
    rows,
    keys: keyBlocks * BLOCK,
    valueColumns: valueBlocks * BLOCK,
    workgroupBytes: 8 * halfVectors(tile) + 16 * rows * floatPitch(keyBlocks) + 32,
  };
}

function halfVectors({ subgroups, rowBlocks, keyBlocks, depthBlocks, valueBlocks }: MatrixTile): number {
  const rows = subgroups * rowBlocks * BLOCK;
  const keysAndValues = keyBlocks * BLOCK * (halfPitch(depthBlocks) + halfPitch(valueBlocks));
  return Math.max(rows * halfPitch(depthBlocks), keysAndValues + rows * halfPitch(keyBlocks));
}

/** The whole shader; its entry point is `prefill`, its grid (row tiles, heads * value tiles, batch * splits). */
export function matrixShader(layout: ElementLayout, tile: MatrixTile, partial: boolean): string {
  const { rowBlocks, keyBlocks, depthBlocks, valueBlocks } = tile;
  const threads = tile.subgroups * SUBGROUP;
  const extent = matrixExtent(tile);
  const eachBlock = (piece: (r: number) => string): string => unroll(rowBlocks, piece);
  const eachOutput = (piece: (r: number, c: number) => string): string =>
    eachBlock((r) => unroll(valueBlocks, (c) => piece(r, c)));
  /** An invocation has one row of each block, and of that row every second vector: first `lane / 16`. */
  const eachVector = (blocks: number, piece: (n: number) => string): string =>
    unroll((blocks * BLOCK_VECTORS) / 2, piece);
  const eachResult = (piece: (r: number, n: number) => string): string =>
    eachBlock((r) => eachVector(valueBlocks, (n) => piece(r, n)));
  /** Rows of float16 vectors to workgroup memory. All are read before the first is stored. */
  const load = (
    rows: number,
    vectors: number,
    read: (row: string, vector: string) => string,
    at: string,
  ): string => {
    const pitch = vectors + 2;
    return moved(
      rows * vectors,
      threads,
      (n, t) => `let x${n} = ${read(`${t} / ${vectors}u`, `${t} % ${vectors}u`)};`,
      (n) => `halves[${at} + t${n} / ${vectors}u * ${pitch}u + t${n} % ${vectors}u] = vec4<f16>(x${n});`,
    );
  };
  const depthVectors = depthBlocks * BLOCK_VECTORS;
  const valueVectors = valueBlocks * BLOCK_VECTORS;
  // What lies past the last row, key or column is replaced by the last one: its weights are 0, its results not written.
  const loadQueries = load(
    extent.rows,
    depthVectors,
    (row, vector) => `row_of_queries(b, h, min(first_row + ${row}, end_row - 1u), ${vector})`,
    '0u',
  );
  const loadKeys = load(
    extent.keys,
    depthVectors,
    (row, vector) => `key_or_zero(b, hkv, min(tile_key + ${row}, key_end - 1u), ${vector})`,
    '0u',
  );
  const loadValues = load(
    extent.keys,
    valueVectors,
    (row, vector) =>
      `read_value(b, hkv, min(tile_key + ${row}, key_end - 1u), min(first_vector + ${vector}, value_columns() - 1u))`,
    'VALUE_START',
  );
  return /* wgsl */ `enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
${attentionInterface(layout, partial)}
alias Left = subgroup_matrix_left<f16, ${BLOCK}, ${BLOCK}>;
alias Right = subgroup_matrix_right<f16, ${BLOCK}, ${BLOCK}>;
alias Sums = subgroup_matrix_result<f32, ${BLOCK}, ${BLOCK}>;

const THREADS = ${threads}u;
const SUBGROUP_ROWS = ${rowBlocks * BLOCK}u;
const TILE_ROWS = ${extent.rows}u;
const TILE_KEYS = ${extent.keys}u;
const VALUE_VECTORS = ${valueVectors}u;
const K_PITCH = ${halfPitch(depthBlocks)}u;
const V_PITCH = ${halfPitch(valueBlocks)}u;
const W_PITCH = ${halfPitch(keyBlocks)}u;
const S_PITCH = ${floatPitch(keyBlocks)}u;
const VALUE_START = TILE_KEYS * K_PITCH;
const WEIGHT_START = VALUE_START + TILE_KEYS * V_PITCH;
// Small weights would be subnormal numbers of f16.
const WEIGHT_UNIT = 32768.0;

// First Q as [row][d4]; then K as [key][d4], V as [key][d4] and the weights as [row][key4].
var<workgroup> halves: array<vec4<f16>, ${halfVectors(tile)}>;
// The scores as [row][key4]; at the end blocks of Y.
var<workgroup> scores: array<vec4f, ${extent.rows * floatPitch(keyBlocks)}>;
${SPOILED}
fn row_of_queries(b: u32, h: u32, i: u32, d4: u32) -> vec4f {
  let depth_vectors = (problem.head_size + 3u) / 4u;
  return select(vec4f(), read_q(start_of(problem.q, b, h, i), min(d4, depth_vectors - 1u)), d4 < depth_vectors);
}

fn key_or_zero(b: u32, h: u32, j: u32, d4: u32) -> vec4f {
  let depth_vectors = (problem.head_size + 3u) / 4u;
  return select(vec4f(), read_key(b, h, j, min(d4, depth_vectors - 1u)), d4 < depth_vectors);
}

@compute @workgroup_size(THREADS)
fn prefill(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) thread: u32) {
  let lane_row = thread % ${BLOCK}u;
  let lane_column = thread % ${SUBGROUP}u / ${BLOCK}u;
  let subgroup_row = thread / ${SUBGROUP}u * SUBGROUP_ROWS;
${TILE_PLACE}
  ${eachBlock(
    (r) => `let at${r} = subgroup_row + ${r * BLOCK}u + lane_row;
  var row${r} = row_of(head, b, h, first_row + at${r});
  row${r}.last = select(-1, min(row${r}.last, i32(key_end) - 1), first_row + at${r} < end_row);`,
  )}
  ${loadQueries}
  workgroupBarrier();
  ${eachBlock((r) =>
    unroll(
      depthBlocks,
      (d) =>
        `let q${r}_${d} = subgroupMatrixLoad<Left, row_major>(&halves, (subgroup_row + ${r * BLOCK}u) * K_PITCH + ${d * BLOCK_VECTORS}u, K_PITCH);`,
    ),
  )}
  ${eachOutput((r, c) => `var o${r}_${c} = Sums();`)}
  ${eachResult((r, n) => `var y${r}_${n} = vec4f();`)}

  // 0 * NaN is NaN: when anything but a finite number comes out, everything is done again, leaving out weights of 0.
  var careful = false;
  loop {
    for (var tile_key = key_begin; tile_key < key_end; tile_key += TILE_KEYS) {
      workgroupBarrier();
      ${loadKeys}
      ${loadValues}
      workgroupBarrier();
      ${unroll(
        keyBlocks,
        (m) => `{ ${eachBlock((r) => `var s${r} = Sums();`)}
        ${unroll(
          depthBlocks,
          (
            d,
          ) => `{ let k = subgroupMatrixLoad<Right, col_major>(&halves, ${m * BLOCK}u * K_PITCH + ${d * BLOCK_VECTORS}u, K_PITCH);
          ${eachBlock((r) => `s${r} = subgroupMatrixMultiplyAccumulate(q${r}_${d}, k, s${r});`)} }`,
        )}
        ${eachBlock((r) => `subgroupMatrixStore<row_major>(&scores, (subgroup_row + ${r * BLOCK}u) * S_PITCH + ${m * BLOCK_VECTORS}u, s${r}, S_PITCH);`)} }`,
      )}
      workgroupBarrier();
      // Windows move on from row to row, so that the outer rows decide for all.
      let all_seen = bottom.first <= i32(tile_key) && top.last >= i32(tile_key + TILE_KEYS) - 1 && tile_key + TILE_KEYS <= key_end;
      ${eachBlock((r) =>
        eachVector(
          keyBlocks,
          (n) => `{ let column = lane_column + ${2 * n}u;
        let keys = vec4i(i32(tile_key + 4u * column)) + vec4i(0, 1, 2, 3);
        var w = weights_of_seen(scale * scores[at${r} * S_PITCH + column], row${r}, head.slope, keys);
        if (!all_seen) { w = select(vec4f(), w, sees(row${r}, keys)); }
        halves[WEIGHT_START + at${r} * W_PITCH + column] = vec4<f16>(WEIGHT_UNIT * w); }`,
        ),
      )}
      workgroupBarrier();
      if (careful) {
        for (var key = 0u; key < min(TILE_KEYS, key_end - tile_key); key++) {
          ${eachBlock(
            (r) => `{ let w = f32(halves[WEIGHT_START + at${r} * W_PITCH + key / 4u][key % 4u]);
          if (takes_part(w)) {
            ${eachVector(valueBlocks, (n) => `y${r}_${n} += w * vec4f(halves[VALUE_START + key * V_PITCH + lane_column + ${2 * n}u]);`)}
          } }`,
          )}
        }
      } else {
        ${unroll(
          keyBlocks,
          (
            m,
          ) => `{ ${eachBlock((r) => `let w${r} = subgroupMatrixLoad<Left, row_major>(&halves, WEIGHT_START + (subgroup_row + ${r * BLOCK}u) * W_PITCH + ${m * BLOCK_VECTORS}u, W_PITCH);`)}
        ${unroll(
          valueBlocks,
          (
            c,
          ) => `{ let v = subgroupMatrixLoad<Right, row_major>(&halves, VALUE_START + ${m * BLOCK}u * V_PITCH + ${c * BLOCK_VECTORS}u, V_PITCH);
          ${eachBlock((r) => `o${r}_${c} = subgroupMatrixMultiplyAccumulate(w${r}, v, o${r}_${c});`)} }`,
        )} }`,
        )}
      }
    }
    if (careful) { break; }
    ${unroll(
      valueBlocks,
      (c) => `workgroupBarrier();
    ${eachBlock((r) => `subgroupMatrixStore<row_major>(&scores, (subgroup_row + ${r * BLOCK}u) * S_PITCH, o${r}_${c}, S_PITCH);`)}
    workgroupBarrier();
    ${eachBlock((r) => unroll(2, (n) => `y${r}_${2 * c + n} = scores[at${r} * S_PITCH + lane_column + ${2 * n}u];`))}`,
    )}
    ${repeatUnlessFinite(Array.from({ length: rowBlocks * valueBlocks * 2 }, (_, n) => `y${Math.floor(n / (2 * valueBlocks))}_${n % (2 * valueBlocks)}`))}
    ${eachResult((r, n) => `y${r}_${n} = vec4f();`)}
  }

  ${eachBlock((r) => {
    const i = `first_row + at${r}`;
    return `if (${i} < end_row) { let at = start_of(problem.out, b, h, ${i})${partial ? ' + split * problem.split_stride' : ''};
    let factor = ${partial ? '1.0' : 'head.gain'} / WEIGHT_UNIT;
    ${eachVector(valueBlocks, (n) => {
      const column = `first_vector + lane_column + ${2 * n}u`;
      return `if (${column} < value_columns()) { write_out(at, ${column}, factor * y${r}_${n}); }`;
    })} }`;
  })}
}
`;
}
