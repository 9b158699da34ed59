/** What a mode needs to know before converting: the parameters of each site, and an account of how they were found. */
import type { Mode, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import type { Runtime } from '../verify/runtime.js';
import { samplesFor, type PlacedModel } from '../verify/verify.js';
import { variantOf } from '../verify/variant.js';
import type { SampleSource } from '../data/source.js';
import { calibrate } from './calibrate.js';
import {
  boundWarnings,
  guardedBias,
  measureSites,
  measuredBias,
  UNMEASURED_BIAS,
  type SiteStatistics,
} from './faithful.js';
import type { SiteFit } from './fit-site.js';

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
  /** Mode `calibrated`: so many sites, the worst, stay faithful. */
  readonly keep?: number;
  /** Mode `faithful` without samples: do not run the model to see whether its scores leave the bound. */
  readonly unmeasuredIsFine?: boolean;
}

export interface Measured {
  readonly samples: string;
  readonly sites: readonly SiteStatistics[];
}

export interface Plan {
  readonly parameters: ReadonlyMap<string, SiteParameters>;
  /** The fit of mode `calibrated`. */
  readonly calibration: { readonly samples: string; readonly sites: readonly SiteFit[] } | null;
  readonly statistics: readonly SiteStatistics[];
  readonly notes: readonly string[];
}

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
  const { parameters, sites } = await calibrate({
    placed,
    samples: source,
    runtime: await request.runtime(),
    seed,
    keep,
    faithful: ({ site }) => faithful.get(site.name) ?? { normalize: true },
    ...(progress ? { progress } : {}),
  });
  const notes =
    (request.source ?? request.data) === undefined
      ? [
          'calibrated on random inputs: the parameters fit scores that the task may never produce; give inputs of the task with --data',
        ]
      : [];
  return { parameters, calibration: { samples: source.description, sites }, statistics, notes };
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
