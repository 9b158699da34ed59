/** What both prefill kernels have in common: the place of a workgroup's tile, loads into workgroup memory, and the second try. */

import { unroll } from './shader.js';

/**
 * Moves `items` things to workgroup memory, an invocation `items / THREADS` of them. All are read before the first is
 * stored, so that their latencies overlap.
 */
export function moved(
  items: number,
  threads: number,
  read: (n: number, item: string) => string,
  store: (n: number) => string,
): string {
  const rounds = Math.ceil(items / threads);
  const isPartial = (n: number): boolean => (n + 1) * threads > items;
  return `{ ${unroll(rounds, (n) => `let t${n} = thread + ${n * threads}u; ${read(n, `t${n}`)}`)}
    ${unroll(rounds, (n) => (isPartial(n) ? `if (t${n} < ${items}u) { ${store(n)} }` : store(n)))} }`;
}

/**
 * WGSL: batch, heads, rows and keys of a workgroup, from `group` and `groups`. The kernel has constants TILE_ROWS, TILE_KEYS and
 * VALUE_VECTORS.
 */
export const TILE_PLACE = /* wgsl */ `  let b = problem.first_batch + group.z / problem.splits;
  let split = group.z % problem.splits;
  let h = problem.first_head + group.y % problem.head_count;
  let hkv = h / problem.group;
  let first_vector = group.y / problem.head_count * VALUE_VECTORS;
  // Later rows of a causal call see more keys: they start first.
  let first_row = problem.row_begin + (groups.x - 1u - group.x) * TILE_ROWS;
  let end_row = min(first_row + TILE_ROWS, problem.row_end);
  let head = head_of(b, h);
  let scale = query_scale(head);

  // The keys that some row of the tile sees, and this split's share of them.
  let top = row_of(head, b, h, first_row);
  let bottom = row_of(head, b, h, end_row - 1u);
  let key_low = max(problem.key_begin, u32(top.first));
  let key_high = min(problem.key_end, u32(max(bottom.last + 1, 0)));
  let tiles = (max(key_high, key_low) - key_low + TILE_KEYS - 1u) / TILE_KEYS;
  let share = (tiles + problem.splits - 1u) / problem.splits * TILE_KEYS;
  let key_begin = key_low + split * share;
  let key_end = min(key_begin + share, key_high);
`;

/** WGSL: the variables of {@link repeatUnlessFinite}. */
export const SPOILED = /* wgsl */ `var<workgroup> spoiled: atomic<u32>;
var<workgroup> again: u32;
`;

/** WGSL at the end of a loop: leaves it when the values of all invocations are finite, else sets `careful`. */
export function repeatUnlessFinite(values: readonly string[]): string {
  return /* wgsl */ `if (${values.map((value) => `has_non_finite(${value})`).join(' || ')}) {
      atomicStore(&spoiled, 1u);
    }
    workgroupBarrier();
    if (thread == 0u) { again = atomicLoad(&spoiled); }
    if (workgroupUniformLoad(&again) == 0u) { break; }
    careful = true;`;
}
