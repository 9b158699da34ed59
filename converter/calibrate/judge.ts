/** Judgements of a calibrated model as a whole: the distance of its outputs from the original's, or a metric of the user's. */
import type { SiteParameters } from '../conversion.js';
import type { SampleSource } from '../data/source.js';
import { firstRuns } from '../data/source.js';
import { convert } from '../index.js';
import { DistanceMeter } from '../verify/compare.js';
import type { Runtime } from '../verify/runtime.js';
import { variantOf } from '../verify/variant.js';
import type { PlacedModel } from '../verify/verify.js';
import type { Judgement } from './keep.js';

/** How far from the original a conversion may be. */
export interface Bound {
  readonly amount: number;
  /** `amount` is a share of the original's metric. */
  readonly relative: boolean;
}

/** A metric of the user's: scores the bytes of a model. */
export interface TaskMetric {
  readonly name: string;
  /** Which way is better; differences in either direction count where it is not known. */
  readonly better: 'higher' | 'lower' | null;
  readonly score: (model: Uint8Array) => Promise<number>;
}

/** Runs that a distance is measured on. */
const RUNS = 32;

type Parameters = ReadonlyMap<string, SiteParameters>;

const converted = ({ model }: PlacedModel, parameters: Parameters): Uint8Array =>
  convert(model, { mode: 'calibrated', parameters: ({ name }) => parameters.get(name) }).toBytes();

/** Largest relative L2 distance of an output. */
export function driftJudgement(
  placed: PlacedModel,
  samples: SampleSource,
  runtime: Runtime,
  bound: number,
): Judgement {
  const judge = async (parameters: Parameters): Promise<number> => {
    const first = await runtime.open(variantOf(placed.model, {}), placed.folder);
    try {
      const second = await runtime.open(converted(placed, parameters), placed.folder);
      try {
        const meters = first.outputs.map((name) => new DistanceMeter(name));
        for await (const feeds of firstRuns(samples, RUNS)) {
          const [a, b] = [await first.run(feeds), await second.run(feeds)];
          for (const meter of meters) meter.add(a[meter.name]!, b[meter.name]!);
        }
        return Math.max(0, ...meters.map((meter) => meter.result().relative));
      } finally {
        await second.close();
      }
    } finally {
      await first.close();
    }
  };
  return {
    label: 'relative L2 distance of the outputs',
    bound,
    original: 0,
    judge,
    isWithin: (value) => value <= bound,
  };
}

export async function metricJudgement(
  placed: PlacedModel,
  metric: TaskMetric,
  { amount, relative }: Bound,
): Promise<Judgement> {
  const original = await metric.score(variantOf(placed.model, {}));
  const bound = relative ? amount * Math.abs(original) : amount;
  const lost = (value: number): number => {
    if (metric.better === null) return Math.abs(value - original);
    return metric.better === 'higher' ? original - value : value - original;
  };
  return {
    label: metric.name,
    bound,
    original,
    judge: (parameters) => metric.score(converted(placed, parameters)),
    isWithin: (value) => lost(value) <= bound,
  };
}
