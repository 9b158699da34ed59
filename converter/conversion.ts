/** Options and result of {@link convert}: what a caller chooses, and the account of what was done. */
import type { BiasMode } from '../op/schema.js';
import type { ReasonCode } from './reasons.js';
import type { Inspection, Site } from './site.js';

/**
 * - `fuse`: sigmoid sites only, exactly; softmax sites stay.
 * - `faithful`: softmax sites too, kept within tolerance by `normalize = 1`.
 * - `paper`: softmax sites become sigmoid with bias -log n, the starting point for fine-tuning.
 * - `calibrated`: softmax sites become sigmoid with the caller's parameters.
 */
export type Mode = 'fuse' | 'faithful' | 'paper' | 'calibrated';

/** Values that override what a mode chooses for one site. Per-head lists hold one number per query head. */
export interface SiteParameters {
  readonly bias?: number;
  readonly biasMode?: BiasMode;
  readonly normalize?: boolean;
  readonly headBias?: readonly number[];
  readonly headScale?: readonly number[];
  readonly headGain?: readonly number[];
  /**
   * Move all scores of a row by one number, so that their mean over the keys of the row is 0 and the largest is never far
   * below. Softmax does not see it. Left out where a past, padding or a soft cap takes part.
   */
  readonly centreScores?: boolean;
  /**
   * Let the mean of the values over positions take the part that a row's weights lack of 1: `W (V - mean) + mean`, which
   * softmax does not see. For sites where every row sees all keys; left out where kv heads are shared or a past takes part.
   */
  readonly centreValues?: boolean;
  /**
   * `[query heads][D]`: the product with the row's query is added to all scores of the row, behind temperature and soft cap.
   * Softmax does not see it. It is a vector added to the keys where these belong to one head and nothing else reads them.
   */
  readonly rowQuery?: readonly (readonly number[])[];
  /**
   * `[query heads][3]`: so many times the mean, the variance and the standard deviation of the row's scaled scores are added to
   * all scores of the row. Over all keys, where every row sees all of them; over keys 0 to i where attention is causal, and
   * then of the mean only. Left out where a past, padding, or a soft cap without causality takes part.
   */
  readonly rowMoments?: readonly (readonly number[])[];
  /** `[heads][Dv]` added to all values. Left out where query heads share values or a past takes part. */
  readonly valueShift?: readonly (readonly number[])[];
  /** `[query heads][Dv]` added to the output of each head, behind its gain. */
  readonly outputShift?: readonly (readonly number[])[];
}

/** Why a site that could be replaced is left as it is. */
export interface Left {
  readonly reason: ReasonCode;
  /** One sentence. */
  readonly detail: string;
}

export interface ConvertOptions {
  readonly mode: Mode;
  /** By site name, or one function for all. Applied to softmax and fused sites only. */
  readonly parameters?:
    Readonly<Record<string, SiteParameters>> | ((site: Site) => SiteParameters | undefined);
  /** Leave out the sites for which this is false, or says why. */
  readonly sites?: (site: Site) => boolean | Left;
  /** Leave the portable function body out of the model (it then needs a runtime with the operator). */
  readonly withoutFunction?: boolean;
}

/** What became of one factor of a site. */
export interface Folding {
  readonly factor: 'temperature' | 'gain';
  /** The factor of each query head. */
  readonly numbers: readonly number[];
  /** Tensors that carry it; empty where it stays an input of the operator. */
  readonly weights: readonly string[];
  /** Why it stays; `null` where it does not. */
  readonly reason: string | null;
}

/** One replaced site, with the names that connect both models. */
export interface Replacement {
  readonly site: Site;
  /** Name of the new SigmoidAttention node. */
  readonly node: string;
  /** The value with the same meaning in both models: the site's result after reshaping. */
  readonly output: { readonly original: string; readonly converted: string };
  /** The operator's inputs in the converted model by schema name, where present. */
  readonly inputs: Readonly<Record<string, string>>;
  readonly attributes: Readonly<Record<string, number | string>>;
  /**
   * The operands of the site's score product are these multiples of the operator's Q and K; `null` where they hold more than
   * that.
   */
  readonly operands: { readonly query: number; readonly key: number } | null;
  /** What became of the site's temperature and gain, where it has them: carried by weights or left to the operator. */
  readonly foldings: readonly Folding[];
  /** Nodes of the original that are gone. */
  readonly removed: readonly string[];
  /** Nodes of the converted model that feed or follow the operator and are new. */
  readonly added: readonly string[];
}

export interface Refusal {
  readonly site: Site;
  readonly name: string;
  readonly reason: ReasonCode;
  readonly detail: string;
}

export interface Conversion {
  readonly inspection: Inspection;
  readonly replaced: readonly Replacement[];
  readonly refused: readonly Refusal[];
  /** Why the model has no portable function and needs a runtime with the operator; `null` when it has one. */
  readonly portableFormMissing: string | null;
  /** The new file in order; spans of the source are yielded without being joined, so large files stream. */
  pieces(): Iterable<Uint8Array>;
  /** Size of the new file in bytes. */
  readonly size: number;
  /** The new file as one array. */
  toBytes(): Uint8Array;
}
