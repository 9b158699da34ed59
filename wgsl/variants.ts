/** Chooses the kernel, its tile and the number of key splits for a call on a device. docs/web.md has the measurements. */

import { DECODE_MAX_HEAD_SIZE, decodeExtent, type DecodeTile } from './decode.wgsl.js';
import { prefillExtent, type PrefillTile } from './prefill.wgsl.js';

/** What the choice depends on besides the call. */
export interface Adapter {
  /** Workgroup memory. */
  readonly workgroupBytes: number;
  readonly workgroupInvocations: number;
  /** A CPU emulates the GPU: it has no latencies to hide, and its compilers choke on large tiles. */
  readonly isSoftware: boolean;
}

export type Variant =
  | { readonly kernel: 'prefill'; readonly tile: PrefillTile; readonly splits: number }
  | { readonly kernel: 'decode'; readonly tile: DecodeTile; readonly splits: number };

export interface VariantProblem {
  readonly batch: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
}

/** Query rows that share a kv head, up to which reading the keys once and splitting them pays. */
const MAX_DECODE_ROWS = 16;
/** Workgroups that keep a large GPU busy. */
const DECODE_WORKGROUPS = 1024;
const PREFILL_WORKGROUPS = 256;
/** Keys below which a split is not worth its partial sums. */
const MIN_DECODE_SPLIT = 256;
const MIN_PREFILL_SPLIT = 64;

/** Rows threads by column threads; rows, keys and vectors of value columns of each; values at a time. */
type TileShape = readonly [
  rowThreads: number,
  columnThreads: number,
  rows: number,
  keys: number,
  valueVectors: number,
  valueKeys: number,
];

/**
 * Tiles by their value columns, best first. The last of each fits the least limits of WebGPU, 16 KB of workgroup memory and
 * 256 invocations.
 */
const TILES: readonly { readonly valueColumns: number; readonly shapes: readonly TileShape[] }[] = [
  { valueColumns: 32, shapes: [[16, 8, 4, 4, 1, 16]] },
  {
    valueColumns: 64,
    shapes: [
      [16, 16, 4, 4, 1, 16],
      [8, 16, 4, 4, 1, 16],
    ],
  },
  {
    valueColumns: 128,
    shapes: [
      [16, 16, 4, 4, 2, 16],
      [8, 32, 4, 4, 1, 8],
      [16, 8, 4, 4, 4, 8],
    ],
  },
];
const SOFTWARE_TILES: typeof TILES = [
  { valueColumns: 32, shapes: [[16, 8, 4, 4, 1, 16]] },
  { valueColumns: 64, shapes: [[16, 8, 4, 4, 2, 16]] },
  { valueColumns: 128, shapes: [[16, 8, 4, 4, 4, 8]] },
];

export function chooseVariant(problem: VariantProblem, adapter: Adapter): Variant {
  const rows = (problem.queryLength * problem.queryHeads) / problem.kvHeads;
  return rows <= MAX_DECODE_ROWS && problem.headSize <= DECODE_MAX_HEAD_SIZE
    ? decodeVariant(problem, rows)
    : prefillVariant(problem, adapter);
}

function decodeVariant(problem: VariantProblem, rows: number): Variant {
  const tile: DecodeTile = { threads: 128, rows: rows > 4 ? 8 : rows > 2 ? 4 : rows, weights: 128 };
  const workgroups =
    problem.batch *
    problem.kvHeads *
    Math.ceil(rows / tile.rows) *
    Math.ceil(problem.valueHeadSize / decodeExtent(tile).valueColumns);
  return {
    kernel: 'decode',
    tile,
    splits: splitsFor(workgroups, DECODE_WORKGROUPS, problem.keyLength / MIN_DECODE_SPLIT),
  };
}

/** The best tile that gives the device enough workgroups, or else the one that gives most. */
function prefillVariant(problem: VariantProblem, adapter: Adapter): Variant {
  const tables = adapter.isSoftware ? SOFTWARE_TILES : TILES;
  const { shapes } =
    tables.find(({ valueColumns }) => problem.valueHeadSize <= valueColumns) ?? tables.at(-1)!;
  const tiles = shapes
    .map((shape) => prefillTile(shape, problem.headSize))
    .filter((tile) => fits(tile, adapter));
  if (tiles.length === 0)
    throw new RangeError(
      `the device has ${adapter.workgroupBytes} bytes of workgroup memory and ${adapter.workgroupInvocations} invocations a workgroup; attention needs 16384 and 128`,
    );
  const workgroupsOf = (tile: PrefillTile): number => prefillWorkgroups(problem, tile);
  const tile =
    tiles.find((candidate) => workgroupsOf(candidate) >= PREFILL_WORKGROUPS) ??
    tiles.reduce((most, candidate) => (workgroupsOf(candidate) > workgroupsOf(most) ? candidate : most));
  const leastKeys = Math.max(MIN_PREFILL_SPLIT, prefillExtent(tile).keys);
  const splits = splitsFor(workgroupsOf(tile), PREFILL_WORKGROUPS, problem.keyLength / leastKeys);
  return { kernel: 'prefill', tile, splits: adapter.isSoftware ? 1 : splits };
}

function prefillWorkgroups(problem: VariantProblem, tile: PrefillTile): number {
  const { rows, valueColumns } = prefillExtent(tile);
  return (
    problem.batch *
    problem.queryHeads *
    Math.ceil(problem.queryLength / rows) *
    Math.ceil(problem.valueHeadSize / valueColumns)
  );
}

function fits(tile: PrefillTile, { workgroupBytes, workgroupInvocations }: Adapter): boolean {
  return (
    prefillExtent(tile).workgroupBytes <= workgroupBytes &&
    tile.rowThreads * tile.columnThreads <= workgroupInvocations
  );
}

/** Enough splits that `workgroups` times splits reaches `wanted`, but none smaller than a `largest`th of the keys. */
function splitsFor(workgroups: number, wanted: number, largest: number): number {
  return Math.max(1, Math.min(Math.ceil(wanted / Math.max(1, workgroups)), Math.floor(largest)));
}

function prefillTile(shape: TileShape, headSize: number): PrefillTile {
  const [rowThreads, columnThreads, rows, keys, valueVectors, valueKeys] = shape;
  const depthVectors = headSize <= 16 ? 4 : 8;
  return { rowThreads, columnThreads, rows, keys, valueVectors, depthVectors, valueKeys };
}
