/**
 * Checks the inputs and attributes of one SigmoidAttention call and names its sizes. Every violated constraint is one
 * sentence that names the input or attribute, the value found and the value allowed; docs/errors.md lists them all.
 * The native library checks in the same order with the same sentences.
 */

import { type Attributes, BIAS_MODES, INPUTS, type InputName } from './schema.js';
import { type ElementType, isElementType, type Tensor } from './tensor.js';

/** The inputs by name; optional ones may be missing. */
export type AttentionInputs = { readonly [name in InputName]?: Tensor };

/** The sizes of a call, in the spelling of docs/operator.md. */
export interface AttentionSizes {
  readonly type: ElementType;
  readonly rank: 3 | 4;
  readonly batch: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly queryLength: number;
  /** Nk: the past included. */
  readonly keyLength: number;
  readonly pastLength: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
}

/** A violated constraint of the operator. */
export class ArgumentError extends Error {
  override readonly name = 'ArgumentError';
}

/** Returns the sizes of the call, or throws the {@link ArgumentError} of the first violated constraint. */
export function checkArguments(inputs: AttentionInputs, attributes: Attributes): AttentionSizes {
  checkAttributes(attributes);
  checkTypes(inputs);
  const sizes = checkQueryKeyValue(inputs, attributes);
  checkMask(inputs, sizes);
  checkShapeOfValidLengths(inputs, sizes);
  checkPerHead(inputs, sizes);
  checkValidLengths(inputs, sizes);
  return sizes;
}

function checkAttributes(attributes: Attributes): void {
  const { bias_mode = 'none', softcap = 0, q_num_heads, kv_num_heads } = attributes;
  require(BIAS_MODES.includes(
    bias_mode,
  ), `bias_mode is "${bias_mode}", must be "none", "neg_log_total", "neg_log_valid" or "neg_log_visible".`);
  require(softcap >= 0 &&
    Number.isFinite(
      softcap,
    ), `softcap is ${floatText(softcap)}, must be 0 (none) or a positive finite number.`);
  for (const name of ['scale', 'bias'] as const) {
    const value = attributes[name] ?? 0;
    require(Number.isFinite(value), `${name} is ${floatText(value)}, must be a finite number.`);
  }
  checkFlag('is_causal', attributes);
  for (const name of ['left_window_size', 'right_window_size'] as const) {
    const size = attributes[name] ?? -1;
    require(size >= -1, `${name} is ${size}, must be -1 (unbounded) or more.`);
  }
  checkFlag('normalize', attributes);
  for (const name of ['q_num_heads', 'kv_num_heads'] as const) {
    const heads = attributes[name] ?? 1;
    require(heads >= 1, `${name} is ${heads}, must be at least 1.`);
  }
  require(q_num_heads === undefined ||
    kv_num_heads === undefined ||
    q_num_heads % kv_num_heads ===
      0, `q_num_heads is ${q_num_heads}, must be a multiple of kv_num_heads, which is ${kv_num_heads}.`);
}

function checkFlag(name: 'is_causal' | 'normalize', attributes: Attributes): void {
  const value = Number(attributes[name] ?? false);
  require(value === 0 || value === 1, `${name} is ${value}, must be 0 or 1.`);
}

function checkTypes(inputs: AttentionInputs): void {
  for (const { name, optional } of INPUTS)
    require(optional || inputs[name] !== undefined, `${name} is missing, must be given.`);
  const elementType = inputs.Q!.type;
  require(isElementType(elementType), `Q is ${elementType}, must be float, float16 or bfloat16.`);
  const must = (
    type: 'T' | 'T or float or bool' | 'float' | 'int64',
    allowed: string[],
    text: string,
  ): void => {
    for (const spec of INPUTS) {
      const found = inputs[spec.name]?.type;
      if (spec.type === type && found !== undefined)
        require(allowed.includes(found), `${spec.name} is ${found}, must be ${text}.`);
    }
  };
  const own = elementType === 'float' ? '' : `${elementType} (the type of Q), `;
  must('T', [elementType], `${elementType}, the type of Q`);
  must('T or float or bool', [elementType, 'float', 'bool'], `${own}float or bool`);
  must('int64', ['int64'], 'int64');
  must('float', ['float'], 'float');
}

function checkQueryKeyValue(inputs: AttentionInputs, attributes: Attributes): AttentionSizes {
  const rank = inputs.Q!.dims.length;
  require(rank === 3 || rank === 4, `Q has rank ${rank}, must be 3 or 4.`);
  for (const name of ['K', 'V'] as const) {
    const found = inputs[name]!.dims.length;
    require(found === rank, `${name} has rank ${found}, must be ${rank}, the rank of Q.`);
  }
  const q = readHeads('Q', inputs.Q!, 'q_num_heads', attributes);
  const k = readHeads('K', inputs.K!, 'kv_num_heads', attributes);
  require(k.batch === q.batch, `K has batch size ${k.batch}, must be ${q.batch}, the batch size of Q.`);
  require(k.size === q.size, `K has head size ${k.size}, must be ${q.size}, the head size of Q.`);
  const v = readHeads('V', inputs.V!, 'kv_num_heads', attributes);
  require(v.batch === q.batch, `V has batch size ${v.batch}, must be ${q.batch}, the batch size of Q.`);
  require(v.heads === k.heads, `V has ${v.heads} heads, must have ${k.heads}, as many as K.`);
  require(v.rows === k.rows, `V has ${v.rows} rows per head, must have ${k.rows}, as many as K.`);
  require(q.heads % k.heads ===
    0, `Q has ${q.heads} heads, must be a multiple of the number of heads of K, which is ${k.heads}.`);
  const pastLength = checkPast(inputs, k, v);
  return {
    type: inputs.Q!.type as ElementType,
    rank,
    batch: q.batch,
    queryHeads: q.heads,
    kvHeads: k.heads,
    queryLength: q.rows,
    keyLength: pastLength + k.rows,
    pastLength,
    headSize: q.size,
    valueHeadSize: v.size,
  };
}

interface HeadLayout {
  batch: number;
  heads: number;
  rows: number;
  size: number;
}

/** Reads [B,H,N,D], or [B,N,H*D] with the help of the attribute that gives H. */
function readHeads(
  name: 'Q' | 'K' | 'V',
  { dims }: Tensor,
  headsName: 'q_num_heads' | 'kv_num_heads',
  attributes: Attributes,
): HeadLayout {
  const given = attributes[headsName];
  const [batch = 0, first = 0, second = 0, last = 0] = dims;
  let layout: HeadLayout;
  if (dims.length === 4) {
    require(given === undefined ||
      given ===
        first, `${headsName} is ${given}, must be ${first}, the number of heads of ${name}, or be left out.`);
    layout = { batch, heads: first, rows: second, size: last };
  } else {
    require(given !== undefined, `${headsName} is missing, must be given when ${name} has rank 3.`);
    require(second % given ===
      0, `${name} has last dimension ${second}, must be a multiple of ${headsName}, which is ${given}.`);
    layout = { batch, heads: given, rows: first, size: second / given };
  }
  require(layout.heads >= 1, `${name} has 0 heads, must have at least 1.`);
  require(layout.size >= 1, `${name} has head size 0, must be at least 1.`);
  return layout;
}

/** Returns P. */
function checkPast({ past_key, past_value }: AttentionInputs, k: HeadLayout, v: HeadLayout): number {
  if (past_key === undefined && past_value === undefined) return 0;
  require(past_value !== undefined, 'past_value is missing, must be given together with past_key.');
  require(past_key !== undefined, 'past_key is missing, must be given together with past_value.');
  const pastLength = past_key.dims[2] ?? 0;
  const keyDims = [k.batch, k.heads, pastLength, k.size];
  require(list(past_key.dims) ===
    list(
      keyDims,
    ), `past_key has shape ${list(past_key.dims)}, must be [${k.batch},${k.heads},past length,${k.size}].`);
  checkShape('past_value', past_value, [[k.batch, k.heads, pastLength, v.size]]);
  return pastLength;
}

function checkMask({ attn_mask }: AttentionInputs, sizes: AttentionSizes): void {
  if (attn_mask === undefined) return;
  const { dims } = attn_mask;
  require(dims.length <= 4, `attn_mask has rank ${dims.length}, must be at most 4.`);
  const scores = [sizes.batch, sizes.queryHeads, sizes.queryLength, sizes.keyLength];
  const aligned = scores.slice(4 - dims.length);
  require(dims.every(
    (dim, axis) => dim === 1 || dim === aligned[axis],
  ), `attn_mask has shape ${list(dims)}, must be broadcastable to ${list(scores)} ` +
    '(batch, heads, query length, key length).');
}

function checkShapeOfValidLengths({ nonpad_kv_seqlen }: AttentionInputs, { batch }: AttentionSizes): void {
  if (nonpad_kv_seqlen !== undefined) checkShape('nonpad_kv_seqlen', nonpad_kv_seqlen, [[batch]]);
}

function checkValidLengths({ nonpad_kv_seqlen }: AttentionInputs, { keyLength }: AttentionSizes): void {
  nonpad_kv_seqlen?.data.forEach((length: number | bigint, b: number) =>
    require(length >= 0 &&
      length <=
        keyLength, `nonpad_kv_seqlen[${b}] is ${length}, must be from 0 to ${keyLength}, the key length.`),
  );
}

function checkPerHead(inputs: AttentionInputs, { batch, queryHeads }: AttentionSizes): void {
  const perHead = [queryHeads];
  const perBatchAndHead = [batch, queryHeads];
  const allowed = {
    head_bias: [perHead, perBatchAndHead],
    head_scale: [perHead],
    head_gain: [perHead],
    alibi_slopes: [perHead, perBatchAndHead],
  };
  for (const [name, shapes] of Object.entries(allowed)) {
    const tensor = inputs[name as InputName];
    if (tensor !== undefined) checkShape(name, tensor, shapes);
  }
}

function checkShape(name: string, { dims }: Tensor, allowed: readonly (readonly number[])[]): void {
  require(allowed.some(
    (each) => list(each) === list(dims),
  ), `${name} has shape ${list(dims)}, must be ${allowed.map(list).join(' or ')}.`);
}

/** As C++ prints it. */
function floatText(value: number): string {
  return Number.isNaN(value) ? 'nan' : String(value).replace('Infinity', 'inf');
}

const list = (dims: readonly number[]): string => `[${dims.join(',')}]`;

function require(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new ArgumentError(sentence);
}
