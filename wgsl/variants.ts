/** Chooses the kernel, its tile and the number of key splits for a call on a device. */

import { DECODE_MAX_HEAD_SIZE, decodeExtent, type DecodeTile } from './decode.wgsl.js';
import { prefillExtent, type PrefillTile } from './prefill.wgsl.js';

export interface VariantLimits {
  readonly workgroupBytes: number;
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
const MIN_PREFILL_SPLIT = 256;

export function chooseVariant(problem: VariantProblem, limits: VariantLimits): Variant {
  const rows = (problem.queryLength * problem.queryHeads) / problem.kvHeads;
  return rows <= MAX_DECODE_ROWS && problem.headSize <= DECODE_MAX_HEAD_SIZE
    ? decodeVariant(problem, rows)
    : prefillVariant(problem, limits);
}

function decodeVariant(problem: VariantProblem, rows: number): Variant {
  const tile: DecodeTile = { threads: 128, rows: rows > 4 ? 8 : rows > 2 ? 4 : rows };
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

function prefillVariant(problem: VariantProblem, limits: VariantLimits): Variant {
  const tile = prefillTile(problem, limits);
  const { rows, valueColumns } = prefillExtent(tile);
  const workgroups =
    problem.batch *
    problem.queryHeads *
    Math.ceil(problem.queryLength / rows) *
    Math.ceil(problem.valueHeadSize / valueColumns);
  return {
    kernel: 'prefill',
    tile,
    splits: splitsFor(workgroups, PREFILL_WORKGROUPS, problem.keyLength / MIN_PREFILL_SPLIT),
  };
}

/** Enough splits that `workgroups` times splits reaches `wanted`, but none smaller than a `largest`th of the keys. */
function splitsFor(workgroups: number, wanted: number, largest: number): number {
  return Math.max(1, Math.min(Math.ceil(wanted / Math.max(1, workgroups)), Math.floor(largest)));
}

function prefillTile({ valueHeadSize }: VariantProblem, _limits: VariantLimits): PrefillTile {
  const columnThreads = 8;
  const valueVectors = valueHeadSize > 64 ? 4 : 2;
  return {
    rowThreads: 16,
    columnThreads,
    rows: 4,
    keys: 4,
    valueVectors,
    depthVectors: 8,
    valueKeys: valueVectors > 2 ? 8 : 16,
  };
}
