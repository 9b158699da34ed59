/**
 * One row of the conformance table: sizes, type, options and seed. Everything else (the tensors, the expected outputs, the
 * model) follows from it, on every device in the same way.
 */

import type { InputName, Attributes } from '../../op/schema.js';
import type { ElementType } from '../../op/tensor.js';

export interface CaseSizes {
  readonly batch: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly queryLength: number;
  /** Nk, the past included. */
  readonly keyLength: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
}

/** B, Hq, Hkv, Nq, Nk, D, Dv (D when left out). */
export function sizes(
  batch: number,
  queryHeads: number,
  kvHeads: number,
  queryLength: number,
  keyLength: number,
  headSize: number,
  valueHeadSize = headSize,
): CaseSizes {
  return { batch, queryHeads, kvHeads, queryLength, keyLength, headSize, valueHeadSize };
}

export interface MaskForm {
  readonly type: 'bool' | 'float' | 'T';
  /** One letter a dimension: B, H, Q, K for the full size, 1 for a broadcast one. Empty: rank 0. */
  readonly dims: string;
  /**
   * What is hidden (false or -Inf): `random` a quarter of the elements, `rows` all of every third row and a quarter of the
   * rest, `tail` the last two keys, `all` everything, `none` nothing; `lowest` as random and `lowest-tail` as tail, with the
   * lowest finite number of the type instead of -Inf. Other numbers are normal with deviation 1.
   */
  readonly hides: 'random' | 'rows' | 'tail' | 'all' | 'none' | 'lowest' | 'lowest-tail';
}

/** Overwrites the given rows (index within that input) of every head; of one batch where that is given. */
export interface Poison {
  readonly input: Extract<InputName, 'K' | 'V' | 'past_key' | 'past_value'>;
  readonly rows: readonly number[];
  readonly value: number;
  readonly batch?: number;
}

export interface CaseOptions {
  readonly type?: ElementType;
  readonly rank?: 3 | 4;
  /** Without q_num_heads and kv_num_heads, which rank 3 gets by itself. */
  readonly attributes?: Attributes;
  readonly mask?: MaskForm;
  /** P; past_key and past_value are given when this is, even as 0. */
  readonly past?: number;
  readonly nonpad?: readonly number[];
  readonly headBias?: 'H' | 'BH';
  readonly alibi?: 'H' | 'BH';
  readonly headScale?: boolean;
  readonly headGain?: boolean;
  /** Whether present_key and present_value are asked for; by default with a past. */
  readonly presents?: boolean;
  /** Standard deviation of the elements of Q, and so of the scores; 1 by default. */
  readonly spread?: number;
  readonly poison?: readonly Poison[];
}

export interface Case extends CaseOptions {
  readonly name: string;
  readonly sizes: CaseSizes;
  readonly type: ElementType;
  readonly rank: 3 | 4;
  readonly attributes: Attributes;
  readonly presents: boolean;
  readonly seed: number;
}

export function conformanceCase(name: string, caseSizes: CaseSizes, options: CaseOptions = {}): Case {
  const { type = 'float', rank = 4, attributes = {}, past, presents = past !== undefined } = options;
  const heads = { q_num_heads: caseSizes.queryHeads, kv_num_heads: caseSizes.kvHeads };
  return {
    ...options,
    name,
    sizes: caseSizes,
    type,
    rank,
    attributes: rank === 3 ? { ...attributes, ...heads } : attributes,
    presents,
    seed: hash(name),
  };
}

/** FNV-1a: a case keeps its numbers when the table around it changes. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
