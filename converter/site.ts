/**
 * What the converter says about a model: attention sites, their meaning, and the decision on each. These types are the
 * contract between the core and everything that prints, verifies or calibrates.
 */
import type { ReasonCode } from './reasons.js';

/** `softmax` and `sigmoid` sites are spelled out in standard operators; `fused` ones are one attention operator. */
export type SiteKind = 'softmax' | 'sigmoid' | 'fused';

/** What a mask or a position term was recognised as; `tensor`: kept as the tensor that the model computes. */
export type MaskKind = 'causal' | 'window' | 'padding' | 'alibi' | 'bias' | 'tensor';

/**
 * `past/present`: the operator takes past keys and values, joins the new ones and yields both; `past`: it only takes them;
 * `present`: it only yields its keys and values; `past joined by the model`: nodes before it join past and new ones;
 * `past in a buffer`: they write new ones into a buffer that may be longer than what it holds.
 */
export type CacheForm =
  'none' | 'past' | 'present' | 'past/present' | 'past joined by the model' | 'past in a buffer';

/** A number known when converting, or a tensor that the model computes. */
export type Quantity = number | 'per-head' | 'tensor';

export interface Site {
  /** Stable within a model: the anchor node's name, or its first output where nodes have no names. */
  readonly name: string;
  readonly kind: SiteKind;
  readonly replaceable: boolean;
  /** Why not; `null` for a replaceable site. */
  readonly reason: ReasonCode | null;
  /** One sentence that names the nodes and values behind `reason`; empty for a replaceable site. */
  readonly reasonDetail: string;
  /** Names of the nodes that caused a refusal. */
  readonly reasonNodes: readonly string[];
  /** Nodes (name, or first output) that carry the site's meaning, from the score product to the value product. */
  readonly nodes: readonly string[];
  /** Query heads; `null` where the graph does not fix them. */
  readonly heads: number | null;
  readonly kvHeads: number | null;
  /** D and Dv of the operator. */
  readonly headSize: number | null;
  readonly valueHeadSize: number | null;
  readonly queryLength: number | null;
  readonly keyLength: number | null;
  /** Everything that multiplies Q K^T, wherever it was written. */
  readonly scale: Quantity;
  /** 0: none. */
  readonly softcap: number;
  /** Terms that decide which keys take part or shift the scores; empty: none. */
  readonly mask: readonly MaskKind[];
  /** `mask` in one word or several joined by `+`; `none` when empty. */
  readonly maskText: string;
  /** The constant that is added to every score of a sigmoid site. */
  readonly bias: Quantity;
  /** A past of keys and values takes part (concatenated, or past inputs of a fused operator). */
  readonly cache: boolean;
  readonly cacheForm: CacheForm;
  /** How the rewritten node is fed: 3 is [B, N, H*D], 4 is [B, H, N, D]. */
  readonly rank: 3 | 4 | null;
  /** float32, float16, bfloat16 of the operator's inputs. */
  readonly dtype: string;
  /** Some row may see no key at all, and the spelling's answer for such rows differs from the operator's 0. */
  readonly emptyRows: boolean;
  /** Place of the site in the order of the graph, 0 (first node) to 1 (last node). */
  readonly depth: number;
  /** Where the site lives: empty for the main graph, else names of the enclosing nodes or function. */
  readonly scope: string;
  /** Names of the values at the site's border, as spelled in the model. */
  readonly values: SiteValues;
}

export interface SiteValues {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** Input of the activation (`null` for fused sites). */
  readonly scores: string | null;
  /** Output of the activation (`null` for fused sites). */
  readonly weights: string | null;
  /** The value that the operator's result stands for. */
  readonly output: string;
}

/** A Softmax or Sigmoid that is no attention: a classifier, a router, a gate. */
export interface PassedOver {
  readonly node: string;
  readonly opType: string;
  readonly reason: ReasonCode;
}

export interface Inspection {
  readonly sites: readonly Site[];
  readonly passedOver: readonly PassedOver[];
  readonly nodeCount: number;
  readonly opsets: Readonly<Record<string, number>>;
  readonly producer: string;
}
