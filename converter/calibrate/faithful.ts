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

/** e^-14 = 8e-7: below what float32 sums of a row lose anyway. */
const MARGIN = 14;

/** Where sigmoid(x) is a float32 that keeps its full precision: e^x is not subnormal. */
const SMALLEST_LOGIT = -87;

/** Weights this far below the row's largest one still count: e^-16 = 1e-7. */
const RELEVANT = 16;

export interface SiteStatistics {
  readonly site: string;
  readonly depth: number;
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
  return sites.map(({ site }, index) => ({
    site: site.name,
    depth: site.depth,
    heads: meters[index]!.map((meter) => meter.result()),
  }));
}

/** The bias of each head from measured scores: its largest score and a margin below 0. */
export function measuredBias({ heads }: SiteStatistics): SiteParameters {
  return {
    normalize: true,
    bias: 0,
    biasMode: 'none',
    headBias: heads.map(({ largestScore }) => (Number.isFinite(largestScore) ? -largestScore - MARGIN : -40)),
  };
}

/** Sentences about heads whose scores leave the window in which a bias keeps softmax's weights. */
export function boundWarnings(statistics: SiteStatistics, biasOf: (head: number) => number): string[] {
  const warnings: string[] = [];
  for (const [head, { largestScore, smallestRowPeak }] of statistics.heads.entries()) {
    if (!Number.isFinite(largestScore)) continue;
    const bias = biasOf(head);
    const error = Math.exp(largestScore + bias);
    if (error > 1e-4) {
      warnings.push(
        `${statistics.site}, head ${head}: a score of ${largestScore.toFixed(1)} with bias ${bias.toFixed(1)} lets weights be off by up to ${Math.min(1, error).toExponential(1)}; give sample inputs with --data`,
      );
    }
    if (smallestRowPeak + bias < SMALLEST_LOGIT + RELEVANT) {
      warnings.push(
        `${statistics.site}, head ${head}: rows whose largest score is ${smallestRowPeak.toFixed(1)} reach float32's smallest numbers with bias ${bias.toFixed(1)}`,
      );
    }
  }
  return warnings;
}
