/**
 * Checks the inputs and attributes of one SigmoidAttention call and names its sizes. Every violated constraint is one
 * sentence that names the input or attribute, the value found and the value allowed; docs/errors.md lists them all, and
 * the native library uses the same sentences.
 */

import { type AttributeSpec, type Attributes, BIAS_MODES, INPUTS, type InputName } from './schema.js';
import { ELEMENT_TYPES, type ElementType, isElementType, type Tensor } from './tensor.js';

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
  checkValidLengths(inputs, sizes);
  checkPerHead(inputs, sizes);
  return sizes;
}

function checkAttributes(attributes: Attributes): void {
  const { bias_mode = 'none', softcap = 0 } = attributes;
  require(BIAS_MODES.includes(
    bias_mode,
  ), `bias_mode is "${bias_mode}"; it must be one of ${BIAS_MODES.join(', ')}`);
  require(softcap >= 0, `softcap is ${softcap}; it must be 0 or more`);
  for (const name of ['left_window_size', 'right_window_size'] as const) {
    const size = attributes[name] ?? -1;
    require(Number.isInteger(size) && size >= -1, `${name} is ${size}; it must be -1 or more`);
  }
  for (const name of ['q_num_heads', 'kv_num_heads'] as const) {
    const heads = attributes[name];
    require(heads === undefined ||
      (Number.isInteger(heads) && heads >= 1), `${name} is ${heads}; it must be 1 or more`);
  }
}

function checkTypes(inputs: AttentionInputs): void {
  for (const { name, optional } of INPUTS)
    require(optional || inputs[name] !== undefined, `input ${name} is missing; it is required`);
  const elementType = inputs.Q!.type;
  require(isElementType(
    elementType,
  ), `Q has type ${elementType}; it must be one of ${ELEMENT_TYPES.join(', ')}`);
  for (const { name, type } of INPUTS) {
    const tensor = inputs[name];
    if (tensor === undefined) continue;
    if (type === 'T')
      require(tensor.type ===
        elementType, `${name} has type ${tensor.type}; it must be ${elementType}, the type of Q`);
    else if (type === 'T or float or bool')
      require([elementType, 'float', 'bool'].includes(
        tensor.type,
      ), `${name} has type ${tensor.type}; it must be bool, float or ${elementType}, the type of Q`);
    else require(tensor.type === type, `${name} has type ${tensor.type}; it must be ${type}`);
  }
}

function checkQueryKeyValue(inputs: AttentionInputs, attributes: Attributes): AttentionSizes {
  const rank = inputs.Q!.dims.length;
  require(rank === 3 || rank === 4, `Q has shape ${shape(inputs.Q!)}; its rank must be 3 or 4`);
  for (const name of ['K', 'V'] as const)
    require(inputs[name]!.dims.length ===
      rank, `${name} has shape ${shape(inputs[name]!)}; its rank must be ${rank}, that of Q`);
  const q = headsFirst('Q', inputs.Q!, 'q_num_heads', attributes.q_num_heads);
  const k = headsFirst('K', inputs.K!, 'kv_num_heads', attributes.kv_num_heads);
  const v = headsFirst('V', inputs.V!, 'kv_num_heads', attributes.kv_num_heads);
  const must = (name: 'K' | 'V', what: string, found: number, allowed: number, whose: string): void =>
    require(found ===
      allowed, `${name} has shape ${shape(inputs[name]!)}; its ${what} must be ${allowed}, that of ${whose}`);
  must('K', 'batch size', k.batch, q.batch, 'Q');
  must('V', 'batch size', v.batch, q.batch, 'Q');
  must('K', 'head size', k.headSize, q.headSize, 'Q');
  must('V', 'number of heads', v.heads, k.heads, 'K');
  must('V', 'length', v.length, k.length, 'K');
  require(q.heads % k.heads ===
    0, `Q has ${q.heads} heads; their number must be a multiple of the ${k.heads} heads of K`);
  const pastLength = checkPast(inputs, [k.batch, k.heads], k.headSize, v.headSize);
  return {
    type: inputs.Q!.type as ElementType,
    rank,
    batch: q.batch,
    queryHeads: q.heads,
    kvHeads: k.heads,
    queryLength: q.length,
    keyLength: pastLength + k.length,
    pastLength,
    headSize: q.headSize,
    valueHeadSize: v.headSize,
  };
}

interface HeadsFirst {
  batch: number;
  heads: number;
  length: number;
  headSize: number;
}

/** Reads the sizes of [B,H,N,D], or of [B,N,H*D] with the help of the attribute that gives H. */
function headsFirst(
  name: InputName,
  tensor: Tensor,
  attribute: AttributeSpec['name'],
  attributeHeads: number | undefined,
): HeadsFirst {
  const { dims } = tensor;
  const [batch = 0, first = 0, second = 0, last = 0] = dims;
  if (dims.length === 4) {
    require(first >= 1, `${name} has shape ${shape(tensor)}; its number of heads must be 1 or more`);
    require(last >= 1, `${name} has shape ${shape(tensor)}; its head size must be 1 or more`);
    require(attributeHeads === undefined ||
      attributeHeads ===
        first, `${attribute} is ${attributeHeads}; it must be ${first}, the number of heads of ${name}`);
    return { batch, heads: first, length: second, headSize: last };
  }
  require(attributeHeads !== undefined, `${attribute} is missing; ${name} of rank 3 needs it`);
  require(second >= 1 &&
    second % attributeHeads ===
      0, `${name} has shape ${shape(tensor)}; its last dimension must be a multiple of ${attribute}, ${attributeHeads}`);
  return { batch, heads: attributeHeads, length: first, headSize: second / attributeHeads };
}

/** Returns P. */
function checkPast(
  { past_key, past_value }: AttentionInputs,
  batchAndHeads: readonly number[],
  headSize: number,
  valueHeadSize: number,
): number {
  if (past_key === undefined && past_value === undefined) return 0;
  require(past_value !== undefined, 'past_key is given without past_value; both or neither must be given');
  require(past_key !== undefined, 'past_value is given without past_key; both or neither must be given');
  const pastLength = past_key.dims[2] ?? 0;
  checkShape('past_key', past_key, [[...batchAndHeads, pastLength, headSize]]);
  checkShape('past_value', past_value, [[...batchAndHeads, pastLength, valueHeadSize]]);
  return pastLength;
}

function checkMask({ attn_mask }: AttentionInputs, sizes: AttentionSizes): void {
  if (attn_mask === undefined) return;
  const full = [sizes.batch, sizes.queryHeads, sizes.queryLength, sizes.keyLength];
  const { dims } = attn_mask;
  const aligned = full.slice(4 - dims.length);
  require(dims.length >= 1 &&
    dims.length <= 4 &&
    dims.every(
      (dim, axis) => dim === 1 || dim === aligned[axis],
    ), `attn_mask has shape ${shape(attn_mask)}; it must be broadcastable to ${list(full)}`);
}

function checkValidLengths({ nonpad_kv_seqlen }: AttentionInputs, sizes: AttentionSizes): void {
  if (nonpad_kv_seqlen === undefined) return;
  checkShape('nonpad_kv_seqlen', nonpad_kv_seqlen, [[sizes.batch]]);
  nonpad_kv_seqlen.data.forEach((length: number | bigint, b: number) =>
    require(length >= 0 &&
      length <=
        sizes.keyLength, `nonpad_kv_seqlen[${b}] is ${length}; it must be between 0 and the key length ${sizes.keyLength}`),
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

function checkShape(name: string, tensor: Tensor, allowed: readonly (readonly number[])[]): void {
  require(allowed.some(
    (dims) => list(dims) === shape(tensor),
  ), `${name} has shape ${shape(tensor)}; it must be ${allowed.map(list).join(' or ')}`);
}

const list = (dims: readonly number[]): string => `[${dims.join(',')}]`;
const shape = (tensor: Tensor): string => list(tensor.dims);

function require(holds: boolean, sentence: string): asserts holds {
  if (!holds) throw new ArgumentError(sentence);
}
