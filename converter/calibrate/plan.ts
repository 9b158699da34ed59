/** What a mode needs to know before converting: the parameters of each site, and an account of how they were found. */
import type { Left, Mode, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import { firstRuns, type SampleSource } from '../data/source.js';
import { siteErrors } from '../verify/beside.js';
import type { Runtime } from '../verify/runtime.js';
import { samplesFor, toleranceOf, type PlacedModel } from '../verify/verify.js';
import { variantOf } from '../verify/variant.js';
import { Calibrator } from './calibrate.js';
import {
  boundWarnings,
  guardedBias,
  headsOutside,
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
  /** Sites that stay softmax because no parameters keep their weights, by name. */
  readonly left: ReadonlyMap<string, Left>;
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
  return { parameters: new Map(), left: new Map(), calibration: null, statistics: [], notes: [] };
}

/** Parameters and warnings from random inputs; neither where the model cannot be run. */
async function planUnmeasured(request: PlanRequest): Promise<Plan> {
  try {
    const source = await samples(request);
    const choices = (await statisticsOf(request, source)).map(unmeasuredChoice);
    const plan = await faithfulPlan(request, source, choices);
    const isTight = choices.some(({ parameters, outside }) => outside.length > 0 || parameters?.headBias);
    const hint = 'give sample inputs with --data for a bias that suits each head';
    return isTight ? { ...plan, notes: [...plan.notes, hint] } : plan;
  } catch {
    return { parameters: new Map(), left: new Map(), calibration: null, statistics: [], notes: [] };
  }
}

async function planFaithful(request: PlanRequest): Promise<Plan> {
  const source = await samples(request);
  const statistics = await statisticsOf(request, source);
  const choices = statistics.map((site) => {
    const parameters = measuredBias(site);
    return { site, parameters, outside: headsOutside(site, parameters) };
  });
  return { ...(await faithfulPlan(request, source, choices)), statistics };
}

interface FaithfulChoice {
  readonly site: SiteStatistics;
  /** `undefined`: what a conversion takes where nothing is given. */
  readonly parameters: SiteParameters | undefined;
  /** Heads whose scores leave the window of the bound. */
  readonly outside: readonly string[];
}

const UNMEASURED: SiteParameters = { normalize: true, bias: UNMEASURED_BIAS };

/** The bias that leaves most room for other inputs; where even random ones leave its window, the one that suits these. */
function unmeasuredChoice(site: SiteStatistics): FaithfulChoice {
  const guarded = guardedBias(site);
  const outside = headsOutside(site, guarded ?? UNMEASURED);
  if (outside.length === 0) return { site, parameters: guarded, outside };
  const parameters = measuredBias(site);
  const still = headsOutside(site, parameters);
  return still.length < outside.length
    ? { site, parameters, outside: still }
    : { site, parameters: guarded, outside };
}

/** Leaves the sites out whose scores leave the window and which then do not give what softmax gives. */
async function faithfulPlan(
  request: PlanRequest,
  source: SampleSource,
  choices: readonly FaithfulChoice[],
): Promise<Plan> {
  const parameters = new Map(
    choices.flatMap((choice) => (choice.parameters ? [[choice.site.site, choice.parameters] as const] : [])),
  );
  const left = await leftSites(request, source, parameters, choices);
  const notes = choices
    .filter(({ site }) => !left.has(site.site))
    .flatMap(({ site, parameters: own }) => boundWarnings(site, own ?? UNMEASURED));
  return { parameters, left, calibration: null, statistics: [], notes };
}

/** The share of what verification allows that a site beyond the bound may take. */
const SHARE_OF_TOLERANCE = 0.1;

/** Runs that decide on such a site. */
const LEAVING_RUNS = 32;

async function leftSites(
  { placed, runtime }: PlanRequest,
  source: SampleSource,
  parameters: ReadonlyMap<string, SiteParameters>,
  choices: readonly FaithfulChoice[],
): Promise<Map<string, Left>> {
  const left = new Map<string, Left>();
  const doubtful = choices.filter(({ outside }) => outside.length > 0);
  if (doubtful.length === 0) return left;
  const conversion = convert(placed.model, {
    mode: 'faithful',
    parameters: ({ name }) => parameters.get(name),
  });
  const runs = firstRuns(source, LEAVING_RUNS);
  const errors = await siteErrors(placed, conversion, runs, await runtime());
  const allowed = SHARE_OF_TOLERANCE * toleranceOf(conversion.replaced, placed.model);
  for (const { site, outside } of doubtful) {
    const error = errors.get(site.site);
    if (error === undefined || error <= allowed) continue;
    left.set(site.site, {
      reason: 'score-range',
      detail:
        `${outside[0]!}; its result would be off by ${error.toExponential(1)} of the largest value ` +
        `(allowed ${allowed.toExponential(1)}) on ${source.description}`,
    });
  }
  return left;
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
    faithful: ({ site }) => faithful.get(site.name) ?? UNMEASURED,
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
  const notes = calibrationNotes(request, calibration);
  return { parameters, left: new Map(), calibration, statistics, notes };
}

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
