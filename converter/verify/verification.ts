/** The result of comparing a converted model with the original: distances, and a verdict that a person can act on. */
import type { Mode } from '../conversion.js';
import type { Distance } from './compare.js';

/** Distances at one replaced site. */
export interface SiteDistance {
  readonly site: string;
  readonly depth: number;
  /** From the original model; `null` where the site lies in a nested graph or a function. */
  readonly drift: Distance | null;
  /** From the original with only the activation exchanged; `null` where that model could not be made. */
  readonly structure: Distance | null;
}

export interface Verification {
  readonly passed: boolean;
  /** One sentence. */
  readonly verdict: string;
  readonly mode: Mode | null;
  /** `kernel` or `function body`: what ran the operator. */
  readonly operator: string;
  /** Where the inputs came from. */
  readonly samples: string;
  readonly runs: number;
  /** Largest relative difference that passes. */
  readonly tolerance: number;
  /** Of the model's outputs from those of the original. */
  readonly drift: readonly Distance[];
  /** Of the model's outputs from the original with only the activations exchanged; empty where that is the original itself. */
  readonly structure: readonly Distance[];
  readonly sites: readonly SiteDistance[];
  /**
   * Of values that the conversion makes anew, from the same inputs as in the original; empty where the models were not laid
   * side by side.
   */
  readonly beside: readonly Distance[];
  /** Things that a reader should know: sites left out of a comparison, runs outside a bound. */
  readonly notes: readonly string[];
}

/** A float model converted exactly differs in the last bits of long sums; float16 and bfloat16 in theirs. */
export const TOLERANCE = { float32: 1e-3, float16: 2e-2, bfloat16: 1e-1 } as const;

export function worst(distances: readonly Distance[]): number {
  return distances.reduce((max, { maxRelative }) => Math.max(max, maxRelative), 0);
}

const scientific = (value: number): string => (value === 0 ? '0' : value.toExponential(1));

/** States whether the conversion holds, and how far the converted model is from the original. */
export function judge(
  mode: Mode | null,
  drift: readonly Distance[],
  structure: readonly Distance[],
  structureSites: readonly Distance[],
  tolerance: number,
  inputs: string,
): { passed: boolean; verdict: string } {
  const far = worst(drift);
  const exact = mode === 'fuse' || mode === 'faithful';
  if (exact || (mode === null && structure.length === 0)) {
    const passed = far <= tolerance;
    if (mode === null) {
      const cosine = Math.min(1, ...drift.map((distance) => distance.cosine));
      return {
        passed,
        verdict: passed
          ? `equal within ${scientific(tolerance)}: largest relative difference ${scientific(far)} on ${inputs}`
          : `different: largest relative difference ${scientific(far)} (allowed ${scientific(tolerance)}), cosine ${cosine.toFixed(4)} on ${inputs}`,
      };
    }
    return {
      passed,
      verdict: passed
        ? `verified: outputs equal the original within ${scientific(far)} of their largest value (allowed ${scientific(tolerance)}) on ${inputs}`
        : `verification failed: outputs differ from the original by ${scientific(far)} of their largest value (allowed ${scientific(tolerance)}) on ${inputs}`,
    };
  }
  const structural = Math.max(worst(structure), worst(structureSites));
  const passed = structural <= tolerance;
  const cosine = Math.min(1, ...drift.map((distance) => distance.cosine));
  const relative = Math.max(0, ...drift.map((distance) => distance.relative));
  const away = `outputs differ from the softmax model by ${(100 * relative).toPrecision(3)} % (cosine ${cosine.toFixed(4)}) on ${inputs}`;
  return {
    passed,
    verdict: passed
      ? `structure verified within ${scientific(structural)}; ${away}`
      : `verification failed: the converted graph differs from the original with sigmoid in place of softmax by ${scientific(structural)} (allowed ${scientific(tolerance)})`,
  };
}

/** The verdict where outputs differ only because a node takes the last digits of its input for a choice. */
export function judgeBeside(
  drift: readonly Distance[],
  beside: readonly Distance[],
  tolerance: number,
  choice: string,
  inputs: string,
): { passed: boolean; verdict: string } | null {
  const near = worst(beside);
  if (beside.length === 0 || near > tolerance) return null;
  return {
    passed: true,
    verdict:
      `verified site by site: from the same values each site gives the original's within ${scientific(near)} of the largest ` +
      `(allowed ${scientific(tolerance)}) on ${inputs}; outputs differ by ${scientific(worst(drift))}, since the model ` +
      `rounds or chooses at run time, as in ${choice}, where a last digit can decide`,
  };
}

/** Outputs may differ so many times as much as the original's own do between two ways of running it. */
const OWN_DIFFERENCES = 3;

/** The verdict where sites lie in nested graphs of a model that differs from itself when the runtime runs it another way. */
export function judgeByOwn(
  drift: readonly Distance[],
  own: readonly Distance[],
  choice: string,
  inputs: string,
): { passed: boolean; verdict: string } | null {
  const allowed = own.map(({ maxRelative }) => OWN_DIFFERENCES * maxRelative);
  if (!drift.every(({ maxRelative }, i) => maxRelative <= allowed[i]!)) return null;
  return {
    passed: true,
    verdict:
      `verified as far as the model can be told from itself: outputs differ from the original by ${scientific(worst(drift))}, ` +
      `and its own, with and without the runtime's optimisations, by ${scientific(worst(own))} on ${inputs}, since it ` +
      `rounds or chooses at run time, as in ${choice}, where a last digit can decide`,
  };
}
