/**
 * Rows of one site, head by head, gathered from many runs within a fixed budget. When the budget is spent every second run
 * is dropped and from then on only every second one is taken, so the rows stay spread over all samples and memory does
 * not grow with their number.
 */
import type { Attributes } from '../../op/schema.js';
import type { RandomNumbers } from '../data/random-numbers.js';
import { rowScores, type CapturedCall } from './captured-call.js';
import { MOMENTS, type HeadRows } from './head-parameters.js';

/** Multiply-adds that one pass over the rows of one head may cost; it bounds memory and time alike. */
const BUDGET = 7e6;
const ROWS_PER_CALL = 128;

export class RowStore {
  /** By run, then by head. */
  #runs: HeadRows[][][] = [];
  #cost = 0;
  #stride = 1;
  #seen = 0;

  constructor(
    private readonly biasMode: Attributes['bias_mode'],
    private readonly random: RandomNumbers,
  ) {}

  /** Takes some rows of every head of the call, or passes the run over. */
  add(call: CapturedCall): void {
    if (this.#seen++ % this.#stride !== 0) return;
    const { batch, queryHeads } = call.sizes;
    const perHead: HeadRows[][] = Array.from({ length: queryHeads }, () => []);
    for (let b = 0; b < batch; b++) {
      const rows = this.#chosenRows(call, b);
      for (let h = 0; h < queryHeads; h++) {
        if (rows.length > 0) perHead[h]!.push(headRows(call, b, h, rows, this.biasMode));
      }
    }
    this.#runs.push(perHead);
    this.#cost += costOf(perHead);
    while (this.#cost > BUDGET && this.#runs.length > 1) {
      this.#runs = this.#runs.filter((_, index) => index % 2 === 0);
      this.#stride *= 2;
      this.#cost = this.#runs.reduce((sum, run) => sum + costOf(run), 0);
    }
  }

  get heads(): number {
    return this.#runs[0]?.length ?? 0;
  }

  head(h: number): HeadRows[] {
    return this.#runs.flatMap((run) => run[h] ?? []);
  }

  /** Rows that see at least one key; a random choice where there are many. */
  #chosenRows(call: CapturedCall, b: number): number[] {
    const all: number[] = [];
    for (let i = 0; i < call.sizes.queryLength; i++) {
      const [first, end] = call.visible(b, i);
      if (end > first) all.push(i);
    }
    for (let taken = 0; all.length > ROWS_PER_CALL && taken < ROWS_PER_CALL; taken++) {
      const other = taken + this.random.below(all.length - taken);
      [all[taken], all[other]] = [all[other]!, all[taken]!];
    }
    return all.slice(0, ROWS_PER_CALL).sort((a, c) => a - c);
  }
}

function costOf(run: readonly HeadRows[][]): number {
  return (run[0] ?? []).reduce((sum, { rows, keys, valueSize }) => sum + rows * keys * valueSize, 0);
}

function headRows(
  call: CapturedCall,
  b: number,
  h: number,
  rows: readonly number[],
  biasMode: Attributes['bias_mode'],
): HeadRows {
  const { headSize, valueHeadSize, keyLength } = call.sizes;
  const arrays = call.head(b, h);
  const queries = new Float32Array(rows.length * headSize);
  const scores = new Float32Array(rows.length * keyLength);
  const moments = new Float32Array(rows.length * MOMENTS);
  const target = new Float32Array(rows.length * valueHeadSize);
  const rowBias = new Float32Array(rows.length);
  let addends: Float32Array | null = null;
  for (const [r, i] of rows.entries()) {
    const own = rowScores(arrays, i, headSize, call.scaleOf(h));
    const added = call.addends(b, h, i);
    queries.set(arrays.queries.subarray(i * headSize, (i + 1) * headSize), r * headSize);
    scores.set(own, r * keyLength);
    const counted = call.isCausal ? own.subarray(0, i + 1) : own;
    moments.set(momentsOf(counted), r * MOMENTS);
    if (added) (addends ??= new Float32Array(rows.length * keyLength)).set(added, r * keyLength);
    rowBias[r] = call.rowBias(biasMode, b, i);
    const output = softmaxRow(own, added, call.softcap, arrays.values, valueHeadSize);
    target.set(output, r * valueHeadSize);
  }
  return {
    rows: rows.length,
    keys: keyLength,
    headSize,
    valueSize: valueHeadSize,
    queries,
    scores,
    moments,
    addends,
    rowBias,
    values: arrays.values,
    target,
  };
}

/** Mean, variance and standard deviation. */
function momentsOf(scores: Float32Array): [number, number, number] {
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / scores.length;
  return [mean, variance, Math.sqrt(variance)];
}

/** The same rows as `centreValues` sees them: values, and with them the target, less the mean of the values. */
export function withoutMeanValue(block: HeadRows): HeadRows {
  const { keys, valueSize } = block;
  const mean = new Float64Array(valueSize);
  block.values.forEach((value, index) => (mean[index % valueSize]! += value / keys));
  const without = (numbers: Float32Array): Float32Array =>
    numbers.map((value, index) => value - mean[index % valueSize]!);
  return { ...block, values: without(block.values), target: without(block.target) };
}

/** Every fourth row of all blocks apart from the others, by whole blocks where there are enough. */
export function heldBack(blocks: readonly HeadRows[]): { fitted: HeadRows[]; judged: HeadRows[] } {
  const isJudged = (index: number): boolean => index % 4 === 3;
  if (blocks.length >= 8) {
    return {
      fitted: blocks.filter((_, index) => !isJudged(index)),
      judged: blocks.filter((_, index) => isJudged(index)),
    };
  }
  return {
    fitted: blocks.map((block) => someRows(block, (row) => !isJudged(row))),
    judged: blocks.map((block) => someRows(block, isJudged)),
  };
}

function someRows(block: HeadRows, isTaken: (row: number) => boolean): HeadRows {
  const rows = [...Array(block.rows).keys()].filter(isTaken);
  const taken = (numbers: Float32Array, size: number): Float32Array => {
    const result = new Float32Array(rows.length * size);
    rows.forEach((row, r) => result.set(numbers.subarray(row * size, (row + 1) * size), r * size));
    return result;
  };
  return {
    ...block,
    rows: rows.length,
    queries: taken(block.queries, block.headSize),
    scores: taken(block.scores, block.keys),
    moments: taken(block.moments, MOMENTS),
    addends: block.addends && taken(block.addends, block.keys),
    rowBias: taken(block.rowBias, 1),
    target: taken(block.target, block.valueSize),
  };
}

/** What softmax attention gives for the row; zeros where no key takes part. */
function softmaxRow(
  scores: Float32Array,
  addends: Float32Array | null,
  softcap: number,
  values: Float32Array,
  valueSize: number,
): Float64Array {
  const logits = Float64Array.from(scores, (score, j) => {
    const capped = softcap > 0 ? softcap * Math.tanh(score / softcap) : score;
    return capped + (addends?.[j] ?? 0);
  });
  const largest = logits.reduce((max, logit) => Math.max(max, logit), -Infinity);
  const output = new Float64Array(valueSize);
  if (largest === -Infinity) return output;
  let sum = 0;
  for (let j = 0; j < logits.length; j++) {
    const weight = Math.exp(logits[j]! - largest);
    if (weight === 0) continue;
    sum += weight;
    for (let d = 0; d < valueSize; d++) output[d]! += weight * values[j * valueSize + d]!;
  }
  return output.map((value) => value / sum);
}
