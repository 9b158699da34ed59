/** Chooses the kernel, its tile and the number of key splits for a call on a device. docs/web.md has the measurements. */

import { decodeExtent, type DecodeTile } from './decode.wgsl.js';
import type { BroadcastTile } from './prefill-broadcast.wgsl.js';
import { BLOCK, matrixExtent, type MatrixTile, SUBGROUP } from './prefill-matrix.wgsl.js';
import { prefillExtent, type PrefillTile } from './prefill.wgsl.js';

/** What the choice depends on besides the call. */
export interface Adapter {
  /** Workgroup memory. */
  readonly workgroupBytes: number;
  readonly workgroupInvocations: number;
  /** A CPU emulates the GPU. */
  readonly isSoftware: boolean;
  /** Invocations of every subgroup; 0 without subgroups, or where their sizes differ. */
  readonly subgroupSize: number;
  /** Multiplies 16 x 16 matrices of float16 into float32 in subgroups of 32. */
  readonly hasMatrices: boolean;
}

export type Variant =
  | { readonly kernel: 'prefill'; readonly tile: PrefillTile; readonly splits: number }
  | { readonly kernel: 'prefill by broadcasts'; readonly tile: BroadcastTile; readonly splits: 1 }
  | { readonly kernel: 'prefill with matrices'; readonly tile: MatrixTile; readonly splits: number }
  | { readonly kernel: 'decode'; readonly tile: DecodeTile; readonly splits: number };

export interface VariantProblem {
  /** Elements are float16, and head sizes multiples of 4. */
  readonly isFloat16: boolean;
  readonly normalize: boolean;
  readonly batch: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
}

/** Query rows that share a kv head, up to which reading the keys once and splitting them pays. */
export const MAX_DECODE_ROWS = 16;
/** Workgroups that keep a large GPU busy. */
const DECODE_WORKGROUPS = 1024;
const PREFILL_WORKGROUPS = 256;
/** Keys below which a split is not worth its partial sums. */
const MIN_DECODE_SPLIT = 256;
const MIN_PREFILL_SPLIT = 64;
/** Rows, and keys at a time, of a workgroup: the code grows with their product. */
const BROADCAST_EDGE = 16;
/** They are variables of every invocation. */
const MAX_BROADCAST_VALUE_VECTORS = 64;

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

export function chooseVariant(problem: VariantProblem, adapter: Adapter): Variant {
  const rows = (problem.queryLength * problem.queryHeads) / problem.kvHeads;
  return rows <= MAX_DECODE_ROWS
    ? decodeVariant(problem, rows)
    : (matrixVariant(problem, adapter) ??
        broadcastVariant(problem, adapter) ??
        prefillVariant(problem, adapter));
}

/** On software adapters with small subgroups. */
function broadcastVariant(
  { valueHeadSize }: VariantProblem,
  { isSoftware, subgroupSize }: Adapter,
): Variant | undefined {
  if (!isSoftware || ![4, 8, 16].includes(subgroupSize)) return undefined;
  // A multiple of 8, so that few shaders are compiled.
  const valueVectors = Math.min(Math.ceil(valueHeadSize / 32) * 8, MAX_BROADCAST_VALUE_VECTORS);
  return {
    kernel: 'prefill by broadcasts',
    tile: {
      lanes: subgroupSize,
      rows: BROADCAST_EDGE / subgroupSize,
      keys: BROADCAST_EDGE / subgroupSize,
      valueVectors,
    },
    splits: 1,
  };
}

/** Tiles by their head size: subgroups of 16 rows each, and blocks of keys; best first. */
const MATRIX_TILES: readonly { readonly headSize: number; readonly shapes: readonly [number, number][] }[] = [
  {
    headSize: 64,
    shapes: [
      [4, 2],
      [2, 2],
    ],
  },
  {
    headSize: 128,
    shapes: [
      [8, 1],
      [4, 2],
      [2, 2],
    ],
  },
];

/** The tile for matrix instructions, where there are such and the rows of a head fit. */
function matrixVariant(problem: VariantProblem, adapter: Adapter): Variant | undefined {
  const { headSize, valueHeadSize, keyLength } = problem;
  const largest = Math.max(headSize, valueHeadSize);
  const table = MATRIX_TILES.find((candidate) => largest <= candidate.headSize);
  if (table === undefined || !adapter.hasMatrices || !problem.isFloat16 || problem.normalize)
    return undefined;
  const blocks = (size: number): number => Math.ceil(size / BLOCK);
  const tiles = table.shapes
    .map(([subgroups, keyBlocks]) => ({
      subgroups,
      rowBlocks: 1,
      keyBlocks,
      depthBlocks: blocks(headSize),
      valueBlocks: blocks(valueHeadSize),
    }))
    .filter(
      (tile) =>
        matrixExtent(tile).workgroupBytes <= adapter.workgroupBytes &&
        tile.subgroups * SUBGROUP <= adapter.workgroupInvocations,
    );
  const workgroupsOf = (tile: MatrixTile): number =>
    problem.batch * problem.queryHeads * Math.ceil(problem.queryLength / matrixExtent(tile).rows);
  const tile = tiles.find((candidate) => workgroupsOf(candidate) >= PREFILL_WORKGROUPS) ?? tiles.at(-1);
  if (tile === undefined) return undefined;
  return {
    kernel: 'prefill with matrices',
    tile,
    splits: splitsFor(workgroupsOf(tile), PREFILL_WORKGROUPS, keyLength / MIN_PREFILL_SPLIT),
  };
}

function decodeVariant(problem: VariantProblem, rows: number): Variant {
  const pairs = problem.isFloat16 && problem.headSize % 8 === 0 && problem.valueHeadSize % 8 === 0;
  const tile: DecodeTile = {
    threads: 128,
    rows: rows > 4 ? 8 : rows > 2 ? 4 : rows,
    weights: 256,
    batch: rows > 2 ? 4 : 8,
    valueLanes: lanesFor(problem.valueHeadSize / (pairs ? 8 : 4)),
    pairs,
  };
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

/** As many invocations as a row of V has reads, where that is a power of two; from 8 to 32. */
function lanesFor(reads: number): number {
  return reads <= 8 ? 8 : reads <= 16 ? 16 : 32;
}

/** The best tile that gives the device enough workgroups, or else the one that gives most. */
function prefillVariant(problem: VariantProblem, adapter: Adapter): Variant {
  const { shapes } = TILES.find(({ valueColumns }) => problem.valueHeadSize <= valueColumns) ?? TILES.at(-1)!;
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
  return { kernel: 'prefill', tile, splits };
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
