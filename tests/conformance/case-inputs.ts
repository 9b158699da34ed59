/** Makes the input tensors of a case: the same numbers on every machine, from the case's seed alone. */

import type { AttentionInputs } from '../../op/constraints.js';
import type { InputName } from '../../op/schema.js';
import { fromNumbers, sizeOf, type ElementType, type Tensor } from '../../op/tensor.js';
import type { Case, MaskForm, Poison } from './case.js';

const LOWEST: Readonly<Record<ElementType, number>> = {
  float: -3.4028234663852886e38,
  float16: -65504,
  bfloat16: -3.3895313892515355e38,
};

/** Q, K, V and every optional input that the case names. */
export function inputsOf(testCase: Case): AttentionInputs {
  const { sizes: s, type, rank, spread = 1, past, mask, nonpad, headBias, alibi } = testCase;
  const random = new Random(testCase.seed);
  const fresh = s.keyLength - (past ?? 0);
  const layout = (heads: number, rows: number, size: number): number[] =>
    rank === 4 ? [s.batch, heads, rows, size] : [s.batch, rows, heads * size];
  const normals = (dims: readonly number[], deviation = 1, elementType = type): Tensor =>
    fromNumbers(elementType, dims, random.normals(sizeOf(dims), deviation));

  const inputs: { [name in InputName]?: Tensor } = {
    Q: normals(layout(s.queryHeads, s.queryLength, s.headSize), spread),
    K: normals(layout(s.kvHeads, fresh, s.headSize)),
    V: normals(layout(s.kvHeads, fresh, s.valueHeadSize)),
  };
  if (mask !== undefined) inputs.attn_mask = maskOf(mask, testCase, random);
  if (past !== undefined) {
    inputs.past_key = normals([s.batch, s.kvHeads, past, s.headSize]);
    inputs.past_value = normals([s.batch, s.kvHeads, past, s.valueHeadSize]);
  }
  if (nonpad !== undefined)
    inputs.nonpad_kv_seqlen = {
      type: 'int64',
      dims: [nonpad.length],
      data: BigInt64Array.from(nonpad, BigInt),
    };
  const perHead = (form: 'H' | 'BH'): number[] => (form === 'H' ? [s.queryHeads] : [s.batch, s.queryHeads]);
  const floats = (dims: number[], value: (index: number) => number): Tensor =>
    fromNumbers(
      'float',
      dims,
      Array.from({ length: sizeOf(dims) }, (_, index) => value(index)),
    );
  if (headBias !== undefined) inputs.head_bias = floats(perHead(headBias), () => random.uniform(-6, 1));
  if (testCase.headScale === true) inputs.head_scale = floats([s.queryHeads], () => random.uniform(0.5, 2));
  if (testCase.headGain === true) inputs.head_gain = floats([s.queryHeads], () => random.uniform(-2, 2));
  if (alibi !== undefined)
    inputs.alibi_slopes = floats(perHead(alibi), (index) => 2 ** ((-8 * (index + 1)) / s.queryHeads));
  for (const poison of testCase.poison ?? [])
    inputs[poison.input] = poisoned(inputs[poison.input]!, poison, testCase);
  return inputs;
}

function maskOf({ type, dims: letters, hides }: MaskForm, testCase: Case, random: Random): Tensor {
  const { batch, queryHeads, queryLength, keyLength } = testCase.sizes;
  const full: Record<string, number> = { B: batch, H: queryHeads, Q: queryLength, K: keyLength, 1: 1 };
  const dims = [...letters].map((letter) => full[letter]!);
  const columns = dims.at(-1) ?? 1;
  const isHidden = Array.from({ length: sizeOf(dims) }, (_, index) => {
    const row = Math.floor(index / columns);
    const isRandom = random.uniform(0, 1) < 0.25;
    switch (hides) {
      case 'rows':
        return row % 3 === 1 || isRandom;
      case 'tail':
      case 'lowest-tail':
        return index % columns >= columns - 2;
      case 'all':
        return true;
      case 'none':
        return false;
      default:
        return isRandom;
    }
  });
  if (type === 'bool') return { type, dims, data: Uint8Array.from(isHidden, (hidden) => (hidden ? 0 : 1)) };
  const elementType = type === 'T' ? testCase.type : type;
  const hiddenValue = hides.startsWith('lowest') ? LOWEST[elementType] : -Infinity;
  const values = random
    .normals(isHidden.length, 1)
    .map((value, index) => (isHidden[index] ? hiddenValue : value));
  return fromNumbers(elementType, dims, values);
}

function poisoned(tensor: Tensor, { rows, value, batch }: Poison, { rank, sizes: s }: Case): Tensor {
  const data = tensor.data.slice();
  const [bits] = fromNumbers(tensor.type as ElementType, [1], [value]).data;
  const [, first = 0, second = 0, last = 0] = tensor.dims;
  const isRank4 = rank === 4 || tensor.dims.length === 4;
  const length = isRank4 ? second : first;
  const width = isRank4 ? last : second;
  const blocks = isRank4 ? s.batch * s.kvHeads : s.batch;
  for (let block = 0; block < blocks; block++) {
    const ofBatch = isRank4 ? Math.floor(block / s.kvHeads) : block;
    if (batch !== undefined && batch !== ofBatch) continue;
    for (const row of rows) {
      const start = (block * length + row) * width;
      (data as Float32Array).fill(bits as number, start, start + width);
    }
  }
  return { ...tensor, data } as Tensor;
}

/** Deterministic numbers: mulberry32, and normals by Box and Muller's method, rounded so that no machine differs. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  uniform(from: number, to: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return from + (((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * (to - from);
  }

  /** Multiples of 2^-10 times the deviation: the last bits of log and cos, which may differ between engines, are cut off. */
  normals(count: number, deviation: number): number[] {
    return Array.from({ length: count }, () => {
      const radius = Math.sqrt(-2 * Math.log(this.uniform(2 ** -20, 1)));
      const normal = radius * Math.cos(2 * Math.PI * this.uniform(0, 1));
      return (Math.round(normal * 1024) / 1024) * deviation;
    });
  }
}
