/**
 * One call of the operator as it happened in a run: queries, keys and values of any head as plain arrays, and what is
 * added to each score. Layouts, past, shared kv heads and broadcast masks are resolved here.
 */
import { checkArguments, type AttentionInputs, type AttentionSizes } from '../../op/constraints.js';
import type { Attributes, InputName } from '../../op/schema.js';
import { toNumbers, type Tensor, type TensorType } from '../../op/tensor.js';

/** A tensor as ONNX Runtime returns it. */
export interface RunTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

const TYPES: Readonly<Record<string, TensorType>> = {
  float32: 'float',
  float16: 'float16',
  bfloat16: 'bfloat16',
  bool: 'bool',
  int64: 'int64',
};

/** The operator's inputs from the outputs of a run. */
export function attentionInputs(values: Readonly<Partial<Record<InputName, RunTensor>>>): AttentionInputs {
  const inputs: Partial<Record<InputName, Tensor>> = {};
  for (const [name, value] of Object.entries(values)) {
    const type = TYPES[value.type];
    if (!type) throw new Error(`attention input ${name} is of type ${value.type}`);
    inputs[name as InputName] = { type, dims: value.dims, data: value.data } as Tensor;
  }
  return inputs;
}

/** The schema's attributes from those written on a node, where flags are numbers. */
export function attentionAttributes(written: Readonly<Record<string, number | string>>): Attributes {
  return {
    ...written,
    is_causal: written['is_causal'] === 1,
    normalize: written['normalize'] === 1,
  } as Attributes;
}

export interface HeadArrays {
  /** `[Nq, D]` */
  readonly queries: Float32Array;
  /** `[Nk, D]` */
  readonly keys: Float32Array;
  /** `[Nk, Dv]` */
  readonly values: Float32Array;
}

export class CapturedCall {
  readonly sizes: AttentionSizes;
  readonly scale: number;
  readonly softcap: number;
  readonly #inputs: AttentionInputs;
  readonly #attributes: Attributes;
  readonly #numbers = new Map<InputName, Float64Array>();
  readonly #maskStrides: readonly [number, number, number, number] | null;

  constructor(inputs: AttentionInputs, attributes: Attributes) {
    this.sizes = checkArguments(inputs, attributes);
    this.#inputs = inputs;
    this.#attributes = attributes;
    this.scale = attributes.scale ?? 1 / Math.sqrt(this.sizes.headSize);
    this.softcap = attributes.softcap ?? 0;
    this.#maskStrides = inputs.attn_mask ? broadcastStrides(inputs.attn_mask.dims) : null;
  }

  /** What multiplies the products of query head `h`, before the soft cap. */
  scaleOf(h: number): number {
    return this.scale * (this.#values('head_scale')?.[h] ?? 1);
  }

  get isCausal(): boolean {
    return this.#attributes.is_causal === true;
  }

  /** Arrays of query head `h` of batch entry `b`. */
  head(b: number, h: number): HeadArrays {
    const { queryHeads, kvHeads, headSize, valueHeadSize } = this.sizes;
    const kv = Math.floor(h / (queryHeads / kvHeads));
    return {
      queries: this.#rows('Q', queryHeads, headSize, b, h),
      keys: joined(this.#past('past_key', headSize, b, kv), this.#rows('K', kvHeads, headSize, b, kv)),
      values: joined(
        this.#past('past_value', valueHeadSize, b, kv),
        this.#rows('V', kvHeads, valueHeadSize, b, kv),
      ),
    };
  }

  /** Mask and position terms of one row, -Infinity where the key takes no part; `null` where nothing is added. */
  addends(b: number, h: number, i: number): Float32Array | null {
    const { keyLength } = this.sizes;
    const slopes = this.#values('alibi_slopes');
    const slope = slopes?.[slopes.length > this.sizes.queryHeads ? b * this.sizes.queryHeads + h : h] ?? 0;
    const mask = this.#values('attn_mask');
    const [first, end] = this.visible(b, i);
    if (slope === 0 && !mask && first === 0 && end === keyLength) return null;
    const result = new Float32Array(keyLength).fill(-Infinity);
    const diagonal = i + this.#offset(b);
    const isBool = this.#inputs.attn_mask?.type === 'bool';
    for (let j = first; j < end; j++) {
      let addend = -slope * Math.abs(diagonal - j);
      if (mask) {
        const [sb, sh, si, sj] = this.#maskStrides!;
        const value = mask[b * sb + h * sh + i * si + j * sj]!;
        addend += isBool ? (value === 0 ? -Infinity : 0) : value;
      }
      result[j] = addend;
    }
    return result;
  }

  /** Keys `[first, end)` that causality, window and padding leave to row `i`. */
  visible(b: number, i: number): [number, number] {
    const { is_causal, left_window_size = -1, right_window_size = -1 } = this.#attributes;
    const diagonal = i + this.#offset(b);
    const nonpad = this.#values('nonpad_kv_seqlen');
    let first = 0;
    let end = nonpad ? Math.min(nonpad[b]!, this.sizes.keyLength) : this.sizes.keyLength;
    if (is_causal) end = Math.min(end, diagonal + 1);
    if (left_window_size >= 0) first = Math.max(first, diagonal - left_window_size);
    if (right_window_size >= 0) end = Math.min(end, diagonal + right_window_size + 1);
    return [Math.min(first, Math.max(end, 0)), Math.max(end, 0)];
  }

  /** What the given bias_mode adds to row `i`. */
  rowBias(mode: Attributes['bias_mode'], b: number, i: number): number {
    if (mode === undefined || mode === 'none') return 0;
    if (mode === 'neg_log_total') return -Math.log(this.sizes.keyLength);
    if (mode === 'neg_log_valid')
      return -Math.log(this.#values('nonpad_kv_seqlen')?.[b] ?? this.sizes.keyLength);
    const [first, end] = this.visible(b, i);
    return end > first ? -Math.log(end - first) : 0;
  }

  #offset(b: number): number {
    if (this.#inputs.past_key) return this.sizes.pastLength;
    const nonpad = this.#values('nonpad_kv_seqlen');
    return nonpad ? nonpad[b]! - this.sizes.queryLength : 0;
  }

  #values(name: InputName): Float64Array | undefined {
    const tensor = this.#inputs[name];
    if (!tensor) return undefined;
    let numbers = this.#numbers.get(name);
    if (!numbers) this.#numbers.set(name, (numbers = toNumbers(tensor)));
    return numbers;
  }

  #rows(name: 'Q' | 'K' | 'V', heads: number, size: number, b: number, h: number): Float32Array {
    const { dims, data } = this.#inputs[name]!;
    const source = this.#inputs[name]!.type === 'float' ? (data as Float32Array) : this.#values(name)!;
    const length = dims.length === 4 ? dims[2]! : dims[1]!;
    const start = dims.length === 4 ? (b * heads + h) * length * size : (b * length * heads + h) * size;
    const stride = dims.length === 4 ? size : heads * size;
    const rows = new Float32Array(length * size);
    for (let n = 0; n < length; n++) {
      rows.set(source.subarray(start + n * stride, start + n * stride + size), n * size);
    }
    return rows;
  }

  #past(name: 'past_key' | 'past_value', size: number, b: number, h: number): Float32Array | null {
    const values = this.#values(name);
    if (!values) return null;
    const [, heads = 0, length = 0] = this.#inputs[name]!.dims;
    return Float32Array.from(
      values.subarray((b * heads + h) * length * size, (b * heads + h + 1) * length * size),
    );
  }
}

/** Scores of one row with every key, scaled, before temperature, soft cap and addends. */
export function rowScores(
  { queries, keys }: HeadArrays,
  i: number,
  headSize: number,
  scale: number,
): Float32Array {
  const count = keys.length / headSize;
  const scores = new Float32Array(count);
  const query = queries.subarray(i * headSize, (i + 1) * headSize);
  for (let j = 0, at = 0; j < count; j++) {
    let sum = 0;
    for (let d = 0; d < headSize; d++, at++) sum += query[d]! * keys[at]!;
    scores[j] = scale * sum;
  }
  return scores;
}

function joined(past: Float32Array | null, fresh: Float32Array): Float32Array {
  if (!past) return fresh;
  const all = new Float32Array(past.length + fresh.length);
  all.set(past);
  all.set(fresh, past.length);
  return all;
}

function broadcastStrides(dims: readonly number[]): [number, number, number, number] {
  const padded = [1, 1, 1, 1, ...dims].slice(-4);
  const strides: [number, number, number, number] = [0, 0, 0, 0];
  for (let axis = 3, stride = 1; axis >= 0; axis--) {
    strides[axis] = padded[axis] === 1 ? 0 : stride;
    stride *= padded[axis]!;
  }
  return strides;
}
