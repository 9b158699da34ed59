/**
 * Parameters of mode `faithful`: normalize = 1 and a bias far below the scores. docs/calibration.md proves the bound that
 * the numbers here come from: each weight's relative error is at most e^(m + b), m the largest score of its row.
 */
import type { SampleSource } from '../data/source.js';
import type { Replacement, SiteParameters } from '../conversion.js';
import type { PlacedModel } from '../verify/verify.js';
import type { Runtime } from '../verify/runtime.js';
import { collected, isVisible, openCollector } from './collect.js';
import { HeadMeter, type HeadStatistics } from './measure.js';

/** e^-14 = 8e-7: below what float32 sums of a row lose anyway. Where scores span more, e^-10 = 5e-5 has to do. */
const MARGIN = 14;
const LEAST_MARGIN = 10;

/** Where sigmoid(x) is a float32 that keeps its full precision: e^x is not subnormal. */
const SMALLEST_LOGIT = -87;

/** Weights this far below the row's largest one still count: e^-16 = 1e-7. */
const RELEVANT = 16;

/** The bias that mode `faithful` takes where nothing was measured. */
export const UNMEASURED_BIAS = -40;

/**
 * The bias for centred scores where nothing was measured. A centred row's largest score is never below 0, so its weights keep
 * their precision whatever the inputs; scores up to 61 stay in the window.
 */
const UNMEASURED_CENTRED_BIAS = SMALLEST_LOGIT + RELEVANT;

/** How much farther than random inputs real ones may move the scores of a trained model from 0. */
const SPREAD_OF_REAL_INPUTS = 4;

export interface SiteStatistics {
  readonly site: string;
  readonly depth: number;
  /** The scores of a row can be moved: no past, padding or soft cap takes part. */
  readonly canCentre: boolean;
  readonly heads: readonly HeadStatistics[];
}

/** Statistics of sites of a faithful conversion over sample inputs. */
export async function measureSites(
  { model, folder }: PlacedModel,
  bytes: Uint8Array,
  replaced: readonly Replacement[],
  samples: SampleSource,
  runtime: Runtime,
  progress?: (label: string, fraction: number) => void,
): Promise<SiteStatistics[]> {
  const sites = replaced.filter(isVisible);
  const meters: HeadMeter[][] = sites.map(() => []);
  const collector = await openCollector(bytes, model, folder, sites, runtime);
  let runs = 0;
  try {
    for await (const calls of collected(collector, samples)) {
      progress?.('measuring', 1 - 1 / (1 + runs++ / 8));
      calls.forEach(({ call }, index) => {
        for (let h = 0; h < call.sizes.queryHeads; h++) (meters[index]![h] ??= new HeadMeter()).add(call, h);
      });
    }
  } finally {
    await collector.close();
  }
  return sites.map(({ site, inputs }, index) => ({
    site: site.name,
    depth: site.depth,
    canCentre:
      !['past_key', 'nonpad_kv_seqlen', 'head_scale'].some((name) => name in inputs) &&
      !site.cache &&
      site.softcap === 0,
    heads: meters[index]!.map((meter) => meter.result()),
  }));
}

interface Window {
  readonly largestScore: number;
  readonly smallestRowPeak: number;
}

/** A bias for each head from measured scores, and centred scores where the scores of rows lie too far apart for one bias. */
export function measuredBias({ heads, canCentre }: SiteStatistics): SiteParameters {
  const plain = heads.map(biasFor);
  const centreScores = canCentre && heads.some((head, index) => !fits(head, plain[index]!));
  const headBias = centreScores ? heads.map(({ centred }) => biasFor(centred)) : plain;
  return { normalize: true, bias: 0, biasMode: 'none', headBias, centreScores };
}

/**
 * Parameters from scores that only random inputs gave; `undefined` where the bias that is taken without measuring has room
 * for what real inputs may do.
 */
export function guardedBias({ heads, canCentre }: SiteStatistics): SiteParameters | undefined {
  const far = ({ largestScore, smallestRowPeak }: Window): Window => ({
    largestScore: SPREAD_OF_REAL_INPUTS * largestScore,
    smallestRowPeak: SPREAD_OF_REAL_INPUTS * smallestRowPeak,
  });
  if (!canCentre || heads.every((head) => fits(far(head), UNMEASURED_BIAS))) return undefined;
  return { normalize: true, bias: UNMEASURED_CENTRED_BIAS, biasMode: 'none', centreScores: true };
}

/** As far below the largest score as the margin asks, but no further than the lowest row allows. */
function biasFor({ largestScore, smallestRowPeak }: Window): number {
  if (!Number.isFinite(largestScore)) return UNMEASURED_BIAS;
  const lowest = SMALLEST_LOGIT + RELEVANT - smallestRowPeak;
  return Math.max(-largestScore - MARGIN, Math.min(-largestScore - LEAST_MARGIN, lowest));
}

function fits({ largestScore, smallestRowPeak }: Window, bias: number): boolean {
  if (!Number.isFinite(largestScore)) return true;
  return (
    largestScore + bias <= -LEAST_MARGIN + 1e-6 && smallestRowPeak + bias >= SMALLEST_LOGIT + RELEVANT - 1e-6
  );
}

/** Clauses about heads whose scores leave the window in which the parameters keep softmax's weights. */
export function headsOutside(statistics: SiteStatistics, parameters: SiteParameters): string[] {
  return statistics.heads.flatMap((measured, head) => {
    const window = parameters.centreScores ? measured.centred : measured;
    const bias = (parameters.bias ?? UNMEASURED_BIAS) + (parameters.headBias?.[head] ?? 0);
    if (fits(window, bias)) return [];
    const { largestScore, smallestRowPeak } = window;
    return [
      `head ${head}: rows whose largest scores go from ${smallestRowPeak.toFixed(1)} to ${largestScore.toFixed(1)} leave the window of bias ${bias.toFixed(1)}, ` +
        `${(SMALLEST_LOGIT + RELEVANT - bias).toFixed(1)} to ${(-LEAST_MARGIN - bias).toFixed(1)}`,
    ];
  });
}

/** The same as warnings about a site that is converted nevertheless. */
export function boundWarnings(statistics: SiteStatistics, parameters: SiteParameters): string[] {
  return headsOutside(statistics, parameters).map(
    (clause) => `${statistics.site}, ${clause}; their weights can be off by more than 5e-5`,
  );
}
