/** What a mode needs to know before converting: the parameters of each site, and an account of how they were found. */
import type { Mode, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import type { Runtime } from '../verify/runtime.js';
import { samplesFor, type PlacedModel } from '../verify/verify.js';
import { variantOf } from '../verify/variant.js';
import type { SampleSource } from '../data/source.js';
import { Calibrator } from './calibrate.js';
import {
  boundWarnings,
  guardedBias,
  measureSites,
  measuredBias,
  UNMEASURED_BIAS,
  type SiteStatistics,
} from './faithful.js';
import type { SiteFit } from './fit-site.js';
import { driftJudgement, metricJudgement, type Bound, type TaskMetric } from './judge.js';
import { chooseKept, type Judgement, type Trade } from './keep.js';

export interface MeasureRequest {
  readonly placed: PlacedModel;
  readonly runtime: () => Promise<Runtime>;
  /** A path of sample data; plausible random inputs when absent. */
  readonly data?: string;
  /** Samples that are at hand already; they come before `data`. */
  readonly source?: SampleSource;
  readonly seed: number;
  readonly progress?: (label: string, fraction: number) => void;
}

export interface PlanRequest extends MeasureRequest {
  readonly mode: Mode;
  /** Mode `calibrated`: so many sites, the worst, stay faithful; `auto`: the fewest that keep the model `within` a bound. */
  readonly keep?: number | 'auto';
  /** For `auto`, of the metric where one is given, else of the outputs' relative L2 distance (then 0.05 when absent). */
  readonly within?: Bound;
  readonly metric?: TaskMetric;
  /** Mode `faithful` without samples: do not run the model to see whether its scores leave the bound. */
  readonly unmeasuredIsFine?: boolean;
}

export interface Measured {
  readonly samples: string;
  readonly sites: readonly SiteStatistics[];
}

export interface CalibrationAccount {
  readonly samples: string;
  readonly sites: readonly SiteFit[];
  /** Sites in nested graphs: samples do not reach their values, so they stay faithful. */
  readonly hidden: readonly string[];
  /** How `keep: auto` chose. */
  readonly choice: Choice | null;
}

export interface Choice {
  /** What was judged. */
  readonly label: string;
  readonly original: number;
  readonly bound: number;
  readonly keep: number;
  readonly trade: readonly Trade[];
}

export interface Plan {
  readonly parameters: ReadonlyMap<string, SiteParameters>;
  /** The fit of mode `calibrated`. */
  readonly calibration: CalibrationAccount | null;
  readonly statistics: readonly SiteStatistics[];
  readonly notes: readonly string[];
}

/** Relative L2 distance of the outputs that `auto` allows where nothing is said. */
const DRIFT_BOUND = 0.05;

/** Random inputs that calibration takes where the user gives none. */
const RANDOM_RUNS = 8;

export async function planParameters(request: PlanRequest): Promise<Plan> {
  if (request.mode === 'calibrated') return planCalibrated(request);
  if (request.mode === 'faithful' && (request.source ?? request.data) !== undefined)
    return planFaithful(request);
  if (request.mode === 'faithful' && !request.unmeasuredIsFine) return planUnmeasured(request);
  return { parameters: new Map(), calibration: null, statistics: [], notes: [] };
}

/** Parameters and warnings from random inputs; neither where the model cannot be run. */
async function planUnmeasured(request: PlanRequest): Promise<Plan> {
  const parameters = new Map<string, SiteParameters>();
  const notes: string[] = [];
  try {
    for (const site of await statisticsOf(request, await samples(request))) {
      const guarded = guardedBias(site);
      if (guarded) parameters.set(site.site, guarded);
      notes.push(...boundWarnings(site, guarded ?? { bias: UNMEASURED_BIAS }));
    }
  } catch {
    return { parameters: new Map(), calibration: null, statistics: [], notes: [] };
  }
  if (notes.length > 0) notes.push('give sample inputs with --data for a bias that suits each head');
  return { parameters, calibration: null, statistics: [], notes };
}

async function planFaithful(request: PlanRequest): Promise<Plan> {
  const statistics = await statisticsOf(request, await samples(request));
  const parameters = new Map(statistics.map((site) => [site.site, measuredBias(site)]));
  const notes = statistics.flatMap((site) => boundWarnings(site, parameters.get(site.site)!));
  return { parameters, calibration: null, statistics, notes };
}

async function planCalibrated(request: PlanRequest): Promise<Plan> {
  const { placed, seed, keep = 0, progress } = request;
  const source = await samples(request);
  const statistics = await statisticsOf(request, source);
  const faithful = new Map(statistics.map((site) => [site.site, measuredBias(site)]));
  const calibrator = new Calibrator({
    placed,
    samples: source,
    runtime: await request.runtime(),
    seed,
    faithful: ({ site }) => faithful.get(site.name) ?? UNSEEN,
    ...(progress ? { progress } : {}),
  });
  const judgement = keep === 'auto' ? await judgementFor(request, source) : null;
  const chosen = judgement && (await chooseKept(calibrator, judgement));
  const { parameters, sites } = chosen ? chosen.calibration : await calibrator.keeping(Number(keep));
  const { hidden } = calibrator;
  const choice =
    judgement && chosen
      ? {
          label: judgement.label,
          original: judgement.original,
          bound: judgement.bound,
          keep: chosen.keep,
          trade: chosen.trade,
        }
      : null;
  const calibration = { samples: source.description, sites, hidden, choice };
  return { parameters, calibration, statistics, notes: calibrationNotes(request, calibration) };
}

/** Where scores cannot be seen: softmax's weights, as without samples. */
const UNSEEN: SiteParameters = { normalize: true, bias: UNMEASURED_BIAS };

async function judgementFor(request: PlanRequest, source: SampleSource): Promise<Judgement> {
  const { placed, metric, within } = request;
  if (!metric) return driftJudgement(placed, source, await request.runtime(), within?.amount ?? DRIFT_BOUND);
  if (!within) throw new Error('keeping sites by a metric needs a bound');
  return metricJudgement(placed, metric, within);
}

function calibrationNotes(request: PlanRequest, { hidden, choice }: CalibrationAccount): string[] {
  const notes: string[] = [];
  if ((request.source ?? request.data) === undefined) {
    notes.push(
      'calibrated on random inputs: the parameters fit scores that the task may never produce; give inputs of the task with --data',
    );
  }
  for (const site of hidden) {
    notes.push(
      `${site} lies in a nested graph, whose values samples do not reach: it stays faithful, with bias ${UNMEASURED_BIAS}`,
    );
  }
  if (choice && !choice.trade.find(({ keep }) => keep === choice.keep)!.within) {
    notes.push(`${choice.label} leaves the bound with every site kept faithful`);
  }
  return notes;
}

/** Measures the scores of every site that can be replaced and does not lie in a nested graph. */
export async function measureModel(request: MeasureRequest): Promise<Measured> {
  const source = await samples(request);
  return { samples: source.description, sites: await statisticsOf(request, source) };
}

async function samples({ placed, runtime, data, source, seed }: MeasureRequest): Promise<SampleSource> {
  if (source) return source;
  const session = await (await runtime()).open(variantOf(placed.model, {}), placed.folder);
  try {
    return await samplesFor(placed, session, { data, seed, count: RANDOM_RUNS });
  } finally {
    await session.close();
  }
}

async function statisticsOf(request: MeasureRequest, source: SampleSource): Promise<SiteStatistics[]> {
  const { placed, progress } = request;
  const conversion = convert(placed.model, { mode: 'faithful' });
  const replaced = conversion.replaced.filter(({ site }) => site.kind !== 'sigmoid');
  if (replaced.length === 0) return [];
  return measureSites(placed, conversion.toBytes(), replaced, source, await request.runtime(), progress);
}
