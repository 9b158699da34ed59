/**
 * The one description of `ort.sigmoid::SigmoidAttention` (version 1) that TypeScript code reads: names, order, types and
 * defaults of its inputs, outputs and attributes. docs/operator.md states the same for people.
 */

export const DOMAIN = 'ort.sigmoid';
export const OP_TYPE = 'SigmoidAttention';
export const SINCE_VERSION = 1;

/** `T` is one of float, float16, bfloat16 and the same for all inputs marked with it. */
export type TypeConstraint = 'T' | 'T or float or bool' | 'float' | 'int64';

export interface InputSpec {
  readonly name: InputName;
  readonly type: TypeConstraint;
  readonly optional: boolean;
  readonly shape: string;
  readonly description: string;
}

export type InputName =
  | 'Q'
  | 'K'
  | 'V'
  | 'attn_mask'
  | 'past_key'
  | 'past_value'
  | 'nonpad_kv_seqlen'
  | 'head_bias'
  | 'head_scale'
  | 'head_gain'
  | 'alibi_slopes';

const input = (
  name: InputName,
  type: TypeConstraint,
  optional: boolean,
  shape: string,
  description: string,
): InputSpec => ({ name, type, optional, shape, description });

/** In the operator's input order: `INPUTS[i]` describes input `i`. */
export const INPUTS: readonly InputSpec[] = [
  input('Q', 'T', false, '[B,Hq,Nq,D] or [B,Nq,Hq*D]', 'query; rank 3 needs q_num_heads and kv_num_heads'),
  input('K', 'T', false, '[B,Hkv,Nk-P,D] or [B,Nk-P,Hkv*D]', 'key, of the same rank as Q'),
  input('V', 'T', false, '[B,Hkv,Nk-P,Dv] or [B,Nk-P,Hkv*Dv]', 'value, of the same rank as Q'),
  input(
    'attn_mask',
    'T or float or bool',
    true,
    'broadcastable to [B,Hq,Nq,Nk]',
    'bool: true takes part; number: added to the scores',
  ),
  input('past_key', 'T', true, '[B,Hkv,P,D]', 'keys of earlier calls; given together with past_value'),
  input('past_value', 'T', true, '[B,Hkv,P,Dv]', 'values of earlier calls; given together with past_key'),
  input('nonpad_kv_seqlen', 'int64', true, '[B]', 'keys at an index >= this value take no part'),
  input('head_bias', 'float', true, '[Hq] or [B,Hq]', 'added to every score of the head'),
  input('head_scale', 'float', true, '[Hq]', "multiplies the head's scores after scale"),
  input('head_gain', 'float', true, '[Hq]', "multiplies the head's output rows"),
  input('alibi_slopes', 'float', true, '[Hq] or [B,Hq]', 'adds -slope * |i + offset - j|'),
];

export const OUTPUTS = [
  { name: 'Y', type: 'T', optional: false, shape: '[B,Hq,Nq,Dv] or [B,Nq,Hq*Dv], the rank of Q' },
  { name: 'present_key', type: 'T', optional: true, shape: '[B,Hkv,Nk,D]' },
  { name: 'present_value', type: 'T', optional: true, shape: '[B,Hkv,Nk,Dv]' },
] as const;

export const BIAS_MODES = ['none', 'neg_log_total', 'neg_log_valid', 'neg_log_visible'] as const;
export type BiasMode = (typeof BIAS_MODES)[number];

/** The operator's attributes; absent ones take the value of {@link ATTRIBUTES}. */
export interface Attributes {
  /** Multiplies Q K^T; `1/sqrt(D)` when absent. */
  scale?: number;
  /** The paper's scalar *b*. */
  bias?: number;
  bias_mode?: BiasMode;
  is_causal?: boolean;
  /** Keys left of the row's own position that it sees; -1 is unbounded. */
  left_window_size?: number;
  right_window_size?: number;
  /** > 0: scores become `softcap * tanh(scores / softcap)`. */
  softcap?: number;
  normalize?: boolean;
  /** Needed for rank-3 inputs. */
  q_num_heads?: number;
  kv_num_heads?: number;
}

export interface AttributeSpec {
  readonly name: keyof Attributes;
  readonly type: 'float' | 'int' | 'string';
  /** `null`: no fixed default; the description says what holds. */
  readonly default: number | string | null;
  readonly description: string;
}

const attribute = (
  name: keyof Attributes,
  type: AttributeSpec['type'],
  fallback: number | string | null,
  description: string,
): AttributeSpec => ({ name, type, default: fallback, description });

export const ATTRIBUTES: readonly AttributeSpec[] = [
  attribute('scale', 'float', null, 'multiplies Q K^T; 1/sqrt(D) when absent'),
  attribute('bias', 'float', 0, 'the scalar b added to every score'),
  attribute('bias_mode', 'string', 'none', 'none, neg_log_total, neg_log_valid or neg_log_visible'),
  attribute('is_causal', 'int', 0, '1: row i sees keys j <= i + offset'),
  attribute('left_window_size', 'int', -1, 'row i sees j >= i + offset - left; -1 is unbounded'),
  attribute('right_window_size', 'int', -1, 'row i sees j <= i + offset + right; -1 is unbounded'),
  attribute('softcap', 'float', 0, '> 0: scores become softcap * tanh(scores / softcap)'),
  attribute('normalize', 'int', 0, '1: each row of weights is divided by its sum'),
  attribute('q_num_heads', 'int', null, 'query heads of rank-3 inputs'),
  attribute('kv_num_heads', 'int', null, 'key and value heads of rank-3 inputs'),
];

/** Index of a named input in the operator's input list. */
export function inputIndex(name: InputName): number {
  return INPUTS.findIndex((spec) => spec.name === name);
}
