/**
 * The operator as docs/operator.md states it, evaluated in float64 one output row at a time. It is the judge of every
 * kernel, so it is written to be read against that page line by line; it is not fast.
 *
 *   S = scale * head_scale[h] * Q K^T
 *   S = softcap > 0 ? softcap * tanh(S / softcap) : S
 *   L = S + attn_mask + alibi + bias + head_bias[h] + bias_mode term
 *   W = sigmoid(L), exactly 0 where the key takes no part;  normalize: W / sum_j W, a row whose sum is 0 stays 0
 *   Y = head_gain[h] * (W V)
 */

import { type AttentionInputs, type AttentionSizes, checkArguments } from './constraints.js';
import type { Attributes } from './schema.js';
import { sizeOf, type Tensor, toNumbers } from './tensor.js';

export interface AttentionOutputs {
  /** Not rounded to `T`. `[B,Hq,Nq,Dv]`, or `[B,Nq,Hq*Dv]` for inputs of rank 3. */
  readonly Y: { readonly dims: readonly number[]; readonly data: Float64Array };
  /** `[B,Hkv,Nk,D]`, the bits of past_key and K. */
  readonly present_key: Tensor;
  /** `[B,Hkv,Nk,Dv]`, the bits of past_value and V. */
  readonly present_value: Tensor;
}

/** One query row of one head: everything that Y is made of. */
export interface AttentionRow {
  readonly b: number;
  readonly h: number;
  readonly i: number;
  /** L of each key; meaningless where the key takes no part. */
  readonly logits: Float64Array;
  /** W of each key. */
  readonly weights: Float64Array;
}

/** Evaluates the operator; throws an ArgumentError when a constraint is violated. */
export function sigmoidAttention(inputs: AttentionInputs, attributes: Attributes = {}): AttentionOutputs {
  const call = new AttentionCall(inputs, attributes);
  const { batch, queryHeads, queryLength, valueHeadSize, rank } = call.sizes;
  const dims =
    rank === 4
      ? [batch, queryHeads, queryLength, valueHeadSize]
      : [batch, queryLength, queryHeads * valueHeadSize];
  const data = new Float64Array(sizeOf(dims));
  for (const row of call.rows())
    for (let d = 0; d < valueHeadSize; d++) {
      const { b, h, i, weights } = row;
      data[call.outputIndex(b, h, i, d)] =
        call.headGain(h) * weightedSum(weights, (j) => call.value(b, h, j, d));
    }
  return {
    Y: { dims, data },
    present_key: present(inputs.K!, inputs.past_key, call.sizes, call.sizes.headSize),
    present_value: present(inputs.V!, inputs.past_value, call.sizes, call.sizes.valueHeadSize),
  };
}

/** A key whose weight is 0 takes no part, so that its NaN or Inf does not reach the sum. */
function weightedSum(weights: Float64Array, value: (j: number) => number): number {
  let sum = 0;
  for (let j = 0; j < weights.length; j++) if (weights[j] !== 0) sum += weights[j]! * value(j);
  return sum;
}

/** sigmoid without cancellation or overflow, to the last bits for every argument. */
export function sigmoid(x: number): number {
  const e = Math.exp(-Math.abs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

/** One call with all its defaults filled in and its inputs decoded to doubles. */
export class AttentionCall {
  readonly sizes: AttentionSizes;
  readonly #attributes: Required<Omit<Attributes, 'q_num_heads' | 'kv_num_heads'>>;
  readonly #query: (b: number, h: number, i: number, d: number) => number;
  readonly #key: (b: number, hkv: number, j: number, d: number) => number;
  readonly #value: (b: number, hkv: number, j: number, d: number) => number;
  readonly #mask: ((b: number, h: number, i: number, j: number) => number) | undefined;
  readonly #hasPast: boolean;
  readonly #nonpad: Float64Array | undefined;
  readonly #headBias: (b: number, h: number) => number;
  readonly #headScale: (b: number, h: number) => number;
  readonly #headGain: (b: number, h: number) => number;
  readonly #alibiSlope: (b: number, h: number) => number;

  constructor(inputs: AttentionInputs, attributes: Attributes) {
    this.sizes = checkArguments(inputs, attributes);
    const { queryHeads, kvHeads, headSize } = this.sizes;
    this.#attributes = {
      // Attributes are stored as float32.
      scale: attributes.scale === undefined ? 1 / Math.sqrt(headSize) : Math.fround(attributes.scale),
      bias: Math.fround(attributes.bias ?? 0),
      bias_mode: attributes.bias_mode ?? 'none',
      is_causal: attributes.is_causal ?? false,
      left_window_size: attributes.left_window_size ?? -1,
      right_window_size: attributes.right_window_size ?? -1,
      softcap: Math.fround(attributes.softcap ?? 0),
      normalize: attributes.normalize ?? false,
    };
    this.#query = headsFirst(inputs.Q!, queryHeads);
    this.#key = concatenated(inputs.past_key, headsFirst(inputs.K!, kvHeads));
    this.#value = concatenated(inputs.past_value, headsFirst(inputs.V!, kvHeads));
    this.#mask = inputs.attn_mask && broadcastMask(inputs.attn_mask);
    this.#hasPast = inputs.past_key !== undefined;
    this.#nonpad = inputs.nonpad_kv_seqlen && toNumbers(inputs.nonpad_kv_seqlen);
    this.#headBias = perHead(inputs.head_bias, queryHeads, 0);
    this.#headScale = perHead(inputs.head_scale, queryHeads, 1);
    this.#headGain = perHead(inputs.head_gain, queryHeads, 1);
    this.#alibiSlope = perHead(inputs.alibi_slopes, queryHeads, 0);
  }

  *rows(): Generator<AttentionRow> {
    for (let b = 0; b < this.sizes.batch; b++)
      for (let h = 0; h < this.sizes.queryHeads; h++)
        for (let i = 0; i < this.sizes.queryLength; i++) yield this.#row(b, h, i);
  }

  #row(b: number, h: number, i: number): AttentionRow {
    const { keyLength } = this.sizes;
    const logits = new Float64Array(keyLength);
    const weights = new Float64Array(keyLength);
    const biasOfRow = this.#attributes.bias + this.#headBias(b, h) + this.#biasModeTerm(b, i);
    let sum = 0;
    for (let j = 0; j < keyLength; j++) {
      if (!this.takesPart(b, h, i, j)) continue;
      logits[j] =
        this.#score(b, h, i, j) + this.#maskAddend(b, h, i, j) + this.#alibi(b, h, i, j) + biasOfRow;
      weights[j] = sigmoid(logits[j]!);
      sum += weights[j]!;
    }
    if (this.#attributes.normalize && sum !== 0) weights.forEach((weight, j) => (weights[j] = weight / sum));
    return { b, h, i, logits, weights };
  }

  #score(b: number, h: number, i: number, j: number): number {
    const { scale, softcap } = this.#attributes;
    let product = 0;
    for (let d = 0; d < this.sizes.headSize; d++) product += this.query(b, h, i, d) * this.key(b, h, j, d);
    const score = scale * this.#headScale(b, h) * product;
    return softcap > 0 ? softcap * Math.tanh(score / softcap) : score;
  }

  /** The window and causal, padding, and the mask decide whether row i sees key j. */
  takesPart(b: number, h: number, i: number, j: number): boolean {
    return this.#isVisible(b, i, j) && this.#maskAddend(b, h, i, j) !== -Infinity;
  }

  #isVisible(b: number, i: number, j: number): boolean {
    const { is_causal, left_window_size, right_window_size } = this.#attributes;
    const diagonal = i + this.#offset(b);
    if (is_causal && j > diagonal) return false;
    if (left_window_size >= 0 && j < diagonal - left_window_size) return false;
    if (right_window_size >= 0 && j > diagonal + right_window_size) return false;
    return this.#nonpad === undefined || j < this.#nonpad[b]!;
  }

  #offset(b: number): number {
    if (this.#hasPast) return this.sizes.pastLength;
    if (this.#nonpad !== undefined) return this.#nonpad[b]! - this.sizes.queryLength;
    return 0;
  }

  #maskAddend(b: number, h: number, i: number, j: number): number {
    return this.#mask === undefined ? 0 : this.#mask(b, h, i, j);
  }

  #alibi(b: number, h: number, i: number, j: number): number {
    return -this.#alibiSlope(b, h) * Math.abs(i + this.#offset(b) - j);
  }

  #biasModeTerm(b: number, i: number): number {
    const { keyLength } = this.sizes;
    switch (this.#attributes.bias_mode) {
      case 'none':
        return 0;
      case 'neg_log_total':
        return -Math.log(keyLength);
      case 'neg_log_valid':
        return -Math.log(this.#nonpad === undefined ? keyLength : this.#nonpad[b]!);
      case 'neg_log_visible': {
        let visible = 0;
        for (let j = 0; j < keyLength; j++) if (this.#isVisible(b, i, j)) visible++;
        return -Math.log(visible);
      }
    }
  }

  query(b: number, h: number, i: number, d: number): number {
    return this.#query(b, h, i, d);
  }

  /** Of the kv head that query head h reads. */
  key(b: number, h: number, j: number, d: number): number {
    return this.#key(b, this.#kvHead(h), j, d);
  }

  /** Of the kv head that query head h reads. */
  value(b: number, h: number, j: number, d: number): number {
    return this.#value(b, this.#kvHead(h), j, d);
  }

  headGain(h: number): number {
    return this.#headGain(0, h);
  }

  #kvHead(h: number): number {
    return Math.floor(h / (this.sizes.queryHeads / this.sizes.kvHeads));
  }

  /** Position of Y[b,h,i,d] in the output of the rank that Q has. */
  outputIndex(b: number, h: number, i: number, d: number): number {
    const { queryHeads, queryLength, valueHeadSize, rank } = this.sizes;
    return rank === 4
      ? ((b * queryHeads + h) * queryLength + i) * valueHeadSize + d
      : ((b * queryLength + i) * queryHeads + h) * valueHeadSize + d;
  }
}

type Read = (b: number, h: number, n: number, d: number) => number;

/** Position of [b,h,n,d] in a tensor of [B,H,N,D], or of [B,N,H*D] with the given number of heads. */
function headsFirstIndex({ dims }: Tensor, heads: number): Read {
  const [, first = 0, second = 0, last = 0] = dims;
  if (dims.length === 4) return (b, h, n, d) => ((b * heads + h) * second + n) * last + d;
  const headSize = second / heads;
  return (b, h, n, d) => ((b * first + n) * heads + h) * headSize + d;
}

function headsFirst(tensor: Tensor, heads: number): Read {
  const data = toNumbers(tensor);
  const index = headsFirstIndex(tensor, heads);
  return (b, h, n, d) => data[index(b, h, n, d)]!;
}

/** Reads the past, [B,H,P,D], and after it the new rows. */
function concatenated(past: Tensor | undefined, fresh: Read): Read {
  if (past === undefined) return fresh;
  const [, heads = 0, pastLength = 0] = past.dims;
  const old = headsFirst(past, heads);
  return (b, h, n, d) => (n < pastLength ? old(b, h, n, d) : fresh(b, h, n - pastLength, d));
}

/** The number added to the score; a bool mask adds 0 where true and -Infinity where false. */
function broadcastMask(mask: Tensor): Read {
  const values = toNumbers(mask);
  const addends = mask.type === 'bool' ? values.map((takesPart) => (takesPart ? 0 : -Infinity)) : values;
  const dims = [1, 1, 1, 1, ...mask.dims].slice(-4);
  const strides = [0, 0, 0, 0];
  for (let axis = 3, stride = 1; axis >= 0; axis--) {
    strides[axis] = dims[axis] === 1 ? 0 : stride;
    stride *= dims[axis]!;
  }
  const [sb = 0, sh = 0, si = 0, sj = 0] = strides;
  return (b, h, i, j) => addends[b * sb + h * sh + i * si + j * sj]!;
}

/** Reads [Hq] or [B,Hq]. */
function perHead(
  tensor: Tensor | undefined,
  queryHeads: number,
  absent: number,
): (b: number, h: number) => number {
  if (tensor === undefined) return () => absent;
  const data = toNumbers(tensor);
  return tensor.dims.length === 1 ? (_b, h) => data[h]! : (b, h) => data[b * queryHeads + h]!;
}

/** [B,Hkv,Nk,headSize]: the bits of the past, [B,Hkv,P,headSize], and after them those of the new rows. */
function present(fresh: Tensor, past: Tensor | undefined, sizes: AttentionSizes, headSize: number): Tensor {
  const { batch, kvHeads, keyLength, pastLength } = sizes;
  const dims = [batch, kvHeads, keyLength, headSize];
  const data = new (fresh.data.constructor as typeof Uint16Array)(sizeOf(dims));
  const freshIndex = headsFirstIndex(fresh, kvHeads);
  let to = 0;
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < kvHeads; h++)
      for (let j = 0; j < keyLength; j++)
        for (let d = 0; d < headSize; d++, to++)
          data[to] =
            j < pastLength
              ? (past!.data[((b * kvHeads + h) * pastLength + j) * headSize + d] as number)
              : (fresh.data[freshIndex(b, h, j - pastLength, d)] as number);
  return { ...fresh, dims, data } as Tensor;
}
