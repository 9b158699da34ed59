/**
 * Calls that violate one constraint each, and the exact sentence that must report it: the same from the reference and from
 * the native library. The list follows docs/errors.md.
 */

import type { AttentionInputs } from '../../op/constraints.js';
import type { Attributes, InputName } from '../../op/schema.js';
import { type ElementType, fromNumbers, sizeOf, type Tensor } from '../../op/tensor.js';

export interface BadCall {
  readonly name: string;
  readonly inputs: AttentionInputs;
  readonly attributes: Attributes;
  readonly message: string;
  /** The runtime's own checks may speak first (of types, or of inputs that the schema requires). */
  readonly runtimeMaySpeakFirst?: boolean;
  /**
   * Whether it shows only when the model runs, even with static dimensions: values do, and rank 0, which ONNX Runtime does
   * not tell from an unknown shape when it asks for output shapes.
   */
  readonly showsAtRun?: boolean;
}

type Changes = { readonly [name in InputName]?: Tensor | undefined };

const zeros = (type: ElementType, ...dims: number[]): Tensor =>
  fromNumbers(type, dims, new Float64Array(sizeOf(dims)));
const float = (...dims: number[]): Tensor => zeros('float', ...dims);
const ints = (...values: number[]): Tensor => ({
  type: 'int64',
  dims: [values.length],
  data: BigInt64Array.from(values, BigInt),
});
const bools = (...dims: number[]): Tensor => ({ type: 'bool', dims, data: new Uint8Array(sizeOf(dims)) });

/** B 2, Hq 4, Hkv 2, Nq 3, Nk 5, D 8, Dv 6. */
const RANK_4 = { Q: float(2, 4, 3, 8), K: float(2, 2, 5, 8), V: float(2, 2, 5, 6) };
const RANK_3 = { Q: float(2, 3, 32), K: float(2, 5, 16), V: float(2, 5, 12) };
const HEADS: Attributes = { q_num_heads: 4, kv_num_heads: 2 };

const bad = (
  name: string,
  message: string,
  changes: Changes,
  attributes: Attributes = {},
  runtimeMaySpeakFirst = false,
): BadCall => ({ name, message, inputs: given({ ...RANK_4, ...changes }), attributes, runtimeMaySpeakFirst });

const bad3 = (name: string, message: string, changes: Changes, attributes: Attributes = HEADS): BadCall => ({
  name,
  message,
  inputs: given({ ...RANK_3, ...changes }),
  attributes,
});

function given(inputs: Changes): AttentionInputs {
  return Object.fromEntries(Object.entries(inputs).filter(([, tensor]) => tensor !== undefined));
}

const badAttributes = (message: string, attributes: Record<string, unknown>): BadCall =>
  bad(`attribute: ${message}`, message, {}, attributes as Attributes);

const atRun = (call: BadCall): BadCall => ({ ...call, showsAtRun: true });

const ATTRIBUTES: readonly BadCall[] = [
  badAttributes(
    'bias_mode is "log", must be "none", "neg_log_total", "neg_log_valid" or "neg_log_visible".',
    { bias_mode: 'log' },
  ),
  badAttributes('bias_mode is "", must be "none", "neg_log_total", "neg_log_valid" or "neg_log_visible".', {
    bias_mode: '',
  }),
  badAttributes('softcap is -1.5, must be 0 (none) or a positive finite number.', { softcap: -1.5 }),
  badAttributes('softcap is nan, must be 0 (none) or a positive finite number.', { softcap: NaN }),
  badAttributes('softcap is inf, must be 0 (none) or a positive finite number.', { softcap: Infinity }),
  badAttributes('scale is nan, must be a finite number.', { scale: NaN }),
  badAttributes('scale is inf, must be a finite number.', { scale: Infinity }),
  badAttributes('bias is -inf, must be a finite number.', { bias: -Infinity }),
  badAttributes('is_causal is 2, must be 0 or 1.', { is_causal: 2 }),
  badAttributes('is_causal is -1, must be 0 or 1.', { is_causal: -1 }),
  badAttributes('normalize is 7, must be 0 or 1.', { normalize: 7 }),
  badAttributes('left_window_size is -2, must be -1 (unbounded) or more.', { left_window_size: -2 }),
  badAttributes('right_window_size is -5, must be -1 (unbounded) or more.', { right_window_size: -5 }),
  badAttributes('q_num_heads is 0, must be at least 1.', { q_num_heads: 0 }),
  badAttributes('kv_num_heads is -3, must be at least 1.', { kv_num_heads: -3 }),
  badAttributes('q_num_heads is 4, must be a multiple of kv_num_heads, which is 3.', {
    q_num_heads: 4,
    kv_num_heads: 3,
  }),
  badAttributes('q_num_heads is 8, must be 4, the number of heads of Q, or be left out.', { q_num_heads: 8 }),
  badAttributes('kv_num_heads is 4, must be 2, the number of heads of K, or be left out.', {
    kv_num_heads: 4,
  }),
];

const ofType = (type: ElementType, ...dims: number[]): Tensor => zeros(type, ...dims);
const wrongType = (name: string, message: string, changes: Changes): BadCall =>
  bad(name, message, changes, {}, true);

const TYPES: readonly BadCall[] = [
  wrongType('Q of int64', 'Q is int64, must be float, float16 or bfloat16.', {
    Q: { type: 'int64', dims: [2, 4, 3, 8], data: new BigInt64Array(192) },
  }),
  wrongType('Q of bool', 'Q is bool, must be float, float16 or bfloat16.', { Q: bools(2, 4, 3, 8) }),
  wrongType('K of another type', 'K is float16, must be float, the type of Q.', {
    K: ofType('float16', 2, 2, 5, 8),
  }),
  wrongType('V of another type', 'V is float16, must be float, the type of Q.', {
    V: ofType('float16', 2, 2, 5, 6),
  }),
  wrongType('past_key of another type', 'past_key is float16, must be float, the type of Q.', {
    past_key: ofType('float16', 2, 2, 1, 8),
    past_value: float(2, 2, 1, 6),
  }),
  wrongType('attn_mask of int64', 'attn_mask is int64, must be float or bool.', {
    attn_mask: { type: 'int64', dims: [5], data: new BigInt64Array(5) },
  }),
  wrongType('attn_mask of float16 for float', 'attn_mask is float16, must be float or bool.', {
    attn_mask: ofType('float16', 3, 5),
  }),
  wrongType(
    'attn_mask of int64 for float16',
    'attn_mask is int64, must be float16 (the type of Q), float or bool.',
    {
      Q: ofType('float16', 2, 4, 3, 8),
      K: ofType('float16', 2, 2, 5, 8),
      V: ofType('float16', 2, 2, 5, 6),
      attn_mask: { type: 'int64', dims: [5], data: new BigInt64Array(5) },
    },
  ),
  wrongType('nonpad_kv_seqlen of float', 'nonpad_kv_seqlen is float, must be int64.', {
    nonpad_kv_seqlen: float(2),
  }),
  ...(['head_bias', 'head_scale', 'head_gain', 'alibi_slopes'] as const).map((name) =>
    wrongType(`${name} of float16`, `${name} is float16, must be float.`, { [name]: ofType('float16', 4) }),
  ),
];

const RANKS: readonly BadCall[] = [
  bad('Q of rank 2', 'Q has rank 2, must be 3 or 4.', { Q: float(3, 8) }),
  bad('Q of rank 5', 'Q has rank 5, must be 3 or 4.', { Q: float(1, 2, 4, 3, 8) }),
  atRun(bad('Q of rank 0', 'Q has rank 0, must be 3 or 4.', { Q: float() })),
  bad('K of rank 3', 'K has rank 3, must be 4, the rank of Q.', { K: float(2, 5, 16) }),
  bad('V of rank 3', 'V has rank 3, must be 4, the rank of Q.', { V: float(2, 5, 12) }),
  bad3('V of rank 4', 'V has rank 4, must be 3, the rank of Q.', { V: float(2, 2, 5, 6) }),
];

const SHAPES: readonly BadCall[] = [
  bad3(
    'rank 3 without q_num_heads',
    'q_num_heads is missing, must be given when Q has rank 3.',
    {},
    { kv_num_heads: 2 },
  ),
  bad3(
    'rank 3 without kv_num_heads',
    'kv_num_heads is missing, must be given when K has rank 3.',
    {},
    {
      q_num_heads: 4,
    },
  ),
  bad3(
    'Q not divisible into heads',
    'Q has last dimension 30, must be a multiple of q_num_heads, which is 4.',
    {
      Q: float(2, 3, 30),
    },
  ),
  bad3(
    'V not divisible into heads',
    'V has last dimension 13, must be a multiple of kv_num_heads, which is 2.',
    {
      V: float(2, 5, 13),
    },
  ),
  bad3('rank 3, head sizes of Q and K', 'K has head size 9, must be 8, the head size of Q.', {
    K: float(2, 5, 18),
  }),
  bad('Q without heads', 'Q has 0 heads, must have at least 1.', { Q: float(2, 0, 3, 8) }),
  bad('K without heads', 'K has 0 heads, must have at least 1.', {
    K: float(2, 0, 5, 8),
    V: float(2, 0, 5, 6),
  }),
  bad('head size 0', 'Q has head size 0, must be at least 1.', {
    Q: float(2, 4, 3, 0),
    K: float(2, 2, 5, 0),
  }),
  bad('value head size 0', 'V has head size 0, must be at least 1.', { V: float(2, 2, 5, 0) }),
  bad('batch of K', 'K has batch size 3, must be 2, the batch size of Q.', { K: float(3, 2, 5, 8) }),
  bad('batch of V', 'V has batch size 1, must be 2, the batch size of Q.', { V: float(1, 2, 5, 6) }),
  bad('head size of K', 'K has head size 7, must be 8, the head size of Q.', { K: float(2, 2, 5, 7) }),
  bad('heads of V', 'V has 4 heads, must have 2, as many as K.', { V: float(2, 4, 5, 6) }),
  bad('length of V', 'V has 6 rows per head, must have 5, as many as K.', { V: float(2, 2, 6, 6) }),
  bad('heads of Q', 'Q has 4 heads, must be a multiple of the number of heads of K, which is 3.', {
    K: float(2, 3, 5, 8),
    V: float(2, 3, 5, 6),
  }),
];

const PAST: readonly BadCall[] = [
  bad('past_key alone', 'past_value is missing, must be given together with past_key.', {
    past_key: float(2, 2, 4, 8),
  }),
  bad('past_value alone', 'past_key is missing, must be given together with past_value.', {
    past_value: float(2, 2, 4, 6),
  }),
  bad('past_key with the heads of Q', 'past_key has shape [2,4,4,8], must be [2,2,past length,8].', {
    past_key: float(2, 4, 4, 8),
    past_value: float(2, 2, 4, 6),
  }),
  bad('past_key of rank 3', 'past_key has shape [2,4,16], must be [2,2,past length,8].', {
    past_key: float(2, 4, 16),
    past_value: float(2, 2, 4, 6),
  }),
  bad('past_value of another length', 'past_value has shape [2,2,3,6], must be [2,2,4,6].', {
    past_key: float(2, 2, 4, 8),
    past_value: float(2, 2, 3, 6),
  }),
  bad('past_value of another head size', 'past_value has shape [2,2,4,8], must be [2,2,4,6].', {
    past_key: float(2, 2, 4, 8),
    past_value: float(2, 2, 4, 8),
  }),
];

const scores = (keys = 5): string =>
  `must be broadcastable to [2,4,3,${keys}] (batch, heads, query length, key length).`;
const MASK: readonly BadCall[] = [
  bad('attn_mask of rank 5', 'attn_mask has rank 5, must be at most 4.', { attn_mask: bools(1, 1, 1, 3, 5) }),
  bad('attn_mask too short', `attn_mask has shape [3,4], ${scores()}`, { attn_mask: bools(3, 4) }),
  bad('attn_mask with kv heads', `attn_mask has shape [2,2,3,5], ${scores()}`, {
    attn_mask: float(2, 2, 3, 5),
  }),
  bad('attn_mask transposed', `attn_mask has shape [5,3], ${scores()}`, { attn_mask: bools(5, 3) }),
  bad('attn_mask without the past', `attn_mask has shape [3,5], ${scores(9)}`, {
    attn_mask: bools(3, 5),
    past_key: float(2, 2, 4, 8),
    past_value: float(2, 2, 4, 6),
  }),
  bad('attn_mask empty', `attn_mask has shape [0], ${scores()}`, { attn_mask: bools(0) }),
];

const VALUES: readonly BadCall[] = [
  bad('nonpad_kv_seqlen too large', 'nonpad_kv_seqlen[1] is 6, must be from 0 to 5, the key length.', {
    nonpad_kv_seqlen: ints(5, 6),
  }),
  bad('nonpad_kv_seqlen negative', 'nonpad_kv_seqlen[0] is -1, must be from 0 to 5, the key length.', {
    nonpad_kv_seqlen: ints(-1, 5),
  }),
  bad(
    'nonpad_kv_seqlen huge',
    'nonpad_kv_seqlen[0] is 4611686018427387904, must be from 0 to 5, the key length.',
    {
      nonpad_kv_seqlen: { type: 'int64', dims: [2], data: BigInt64Array.of(2n ** 62n, 5n) },
    },
  ),
].map(atRun);

const PER_HEAD: readonly BadCall[] = [
  bad('nonpad_kv_seqlen of length 3', 'nonpad_kv_seqlen has shape [3], must be [2].', {
    nonpad_kv_seqlen: ints(1, 2, 3),
  }),
  bad('nonpad_kv_seqlen of rank 2', 'nonpad_kv_seqlen has shape [2,1], must be [2].', {
    nonpad_kv_seqlen: { type: 'int64', dims: [2, 1], data: new BigInt64Array(2) },
  }),
  bad('head_bias with kv heads', 'head_bias has shape [2], must be [4] or [2,4].', { head_bias: float(2) }),
  bad('head_bias of rank 3', 'head_bias has shape [2,4,1], must be [4] or [2,4].', {
    head_bias: float(2, 4, 1),
  }),
  bad('head_scale per batch', 'head_scale has shape [2,4], must be [4].', { head_scale: float(2, 4) }),
  bad('head_gain of length 1', 'head_gain has shape [1], must be [4].', { head_gain: float(1) }),
  atRun(
    bad('alibi_slopes of rank 0', 'alibi_slopes has shape [], must be [4] or [2,4].', {
      alibi_slopes: float(),
    }),
  ),
];

export const BAD_CALLS: readonly BadCall[] = [
  ...ATTRIBUTES,
  ...TYPES,
  ...RANKS,
  ...SHAPES,
  ...PAST,
  ...MASK,
  ...VALUES,
  ...PER_HEAD,
];
