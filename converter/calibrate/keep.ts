/**
 * Chooses how many sites stay faithful: the fewest with which a judgement of the whole model stays within a bound. Few sites
 * are tried one after another; among many the number is halved in on, which takes for granted that keeping more sites never
 * makes the model worse.
 */
import type { SiteParameters } from '../conversion.js';
import type { Calibration, Calibrator } from './calibrate.js';

/** One point of the trade curve. */
export interface Trade {
  readonly keep: number;
  /** What the judgement gave. */
  readonly value: number;
  readonly within: boolean;
}

export interface Judgement {
  /** What `value` is, for a reader. */
  readonly label: string;
  /** How far the judgement is from the original's; at most `bound` is wanted. */
  readonly bound: number;
  /** The judgement of the original itself. */
  readonly original: number;
  readonly judge: (parameters: ReadonlyMap<string, SiteParameters>) => Promise<number>;
  readonly isWithin: (value: number) => boolean;
}

export interface KeepChoice {
  readonly keep: number;
  readonly calibration: Calibration;
  /** By the number kept. */
  readonly trade: readonly Trade[];
}

/** Up to so many sites every number is tried, from 0 on. */
const FEW = 6;

export async function chooseKept(calibrator: Calibrator, judgement: Judgement): Promise<KeepChoice> {
  const tried = new Map<number, Trade & { readonly calibration: Calibration }>();
  const attempt = async (keep: number): Promise<boolean> => {
    const calibration = await calibrator.keeping(keep);
    const value = await judgement.judge(calibration.parameters);
    const within = judgement.isWithin(value);
    tried.set(keep, { keep, value, within, calibration });
    return within;
  };
  let low = 0;
  let high = calibrator.count;
  if (high <= FEW) {
    while (low < high && !(await attempt(low))) low++;
    high = low;
  } else {
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (await attempt(middle)) high = middle;
      else low = middle + 1;
    }
  }
  if (!tried.has(high)) await attempt(high);
  const trade = [...tried.values()]
    .sort((a, b) => a.keep - b.keep)
    .map(({ keep, value, within }) => ({ keep, value, within }));
  return { keep: high, calibration: tried.get(high)!.calibration, trade };
}
