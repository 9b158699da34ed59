/**
 * Runs the original and the converted model on the same inputs and compares: (a) structure, against the original with only
 * the activation of each replaced site exchanged; (b) drift, against the original itself. Sites are compared by their own
 * outputs as well, so that a wrong one can be named. Where a model that rounds or chooses at run time drives both apart, the
 * conversion's new values are compared beside the original's.
 */
import proto from 'onnx-proto';
import { tokenRows } from '../data/token-rows.js';
import { plausibleSamples } from '../data/plausible.js';
import { firstRuns, openSamples, type SampleSource } from '../data/source.js';
import type { Mode, Replacement, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import { isOp, type GraphNode } from '../graph/node.js';
import { openModel, type Model } from '../onnx/model.js';
import { parametersBehind } from '../rewrite/fold.js';
import { DistanceMeter, type Distance } from './compare.js';
import type { Outputs, Runtime, Session } from './runtime.js';
import { isSwappable, swapActivations, SwapRefusal, type SwapSite } from './swap.js';
import { variantOf, type Variant } from './variant.js';
import { distancesBeside } from './beside.js';
import { choosingNode } from './side-by-side.js';
import {
  judge,
  judgeBeside,
  judgeByOwn,
  TOLERANCE,
  type SiteDistance,
  type Verification,
} from './verification.js';

/** A model and the folder of its external data. */
export interface PlacedModel {
  readonly model: Model;
  readonly folder: string;
}

export interface VerifyRequest {
  readonly original: PlacedModel;
  readonly converted: PlacedModel;
  /** `null` where nothing is known about how the one came from the other. */
  readonly mode: Mode | null;
  readonly replaced: readonly Replacement[];
  readonly parametersOf?: (site: string) => SiteParameters | undefined;
  /** A path of sample data; plausible random inputs when absent. */
  readonly data?: string;
  /** Samples that are at hand already; they come before `data`. */
  readonly source?: SampleSource;
  /** Random inputs follow from it. */
  readonly seed?: number;
  /** At most so many runs. */
  readonly limit?: number;
  readonly progress?: (label: string, fraction: number) => void;
}

const RANDOM_RUNS = 4;

/** ONNX Runtime does not load or run one of the two models. */
export class ModelRefused extends Error {
  override readonly name = 'ModelRefused';

  constructor(
    readonly side: 'original' | 'converted',
    cause: unknown,
  ) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

async function refusedBy<T>(side: ModelRefused['side'], work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new ModelRefused(side, error);
  }
}

/** Sample inputs for a model: the given data, or plausible random ones that its session accepts. */
export async function samplesFor(
  { model }: PlacedModel,
  session: Session,
  { data, seed = 1, count = RANDOM_RUNS }: { data?: string | undefined; seed?: number; count?: number },
): Promise<SampleSource> {
  if (data !== undefined) return openSamples(data, session.inputs);
  const rowsOf = (input: string): number | undefined => tokenRows(model.graph, input);
  return plausibleSamples(session.inputs, (feeds) => session.run(feeds), { seed, count, rowsOf });
}

export async function verify(request: VerifyRequest, runtime: Runtime): Promise<Verification> {
  const { original, converted, mode, replaced, seed = 1 } = request;
  const visible = replaced.filter(({ site }) => site.scope === '');
  const sites = visible.map(({ site, output }) => ({ site, ...output }));
  const open: Session[] = [];
  const openVariant = async ({ model, folder }: PlacedModel, variant: Variant): Promise<Session> => {
    const session = await runtime.open(variantOf(model, variant), folder);
    open.push(session);
    return session;
  };
  try {
    const first = await refusedBy(
      'original',
      openVariant(original, { outputs: sites.map((site) => site.original) }),
    );
    const second = await refusedBy(
      'converted',
      openVariant(converted, { outputs: sites.map((site) => site.converted) }),
    );
    const source = request.source ?? (await samplesFor(original, first, { data: request.data, seed }));
    const samples = request.limit === undefined ? source : firstRuns(source, request.limit);
    const notes: string[] = [];
    if (visible.length < replaced.length) {
      notes.push(
        `${replaced.length - visible.length} sites lie in nested graphs; only the outputs tell about them`,
      );
    }
    const exact = mode === 'fuse' || mode === 'faithful' || mode === null;
    const swapped = exact ? null : await openSwapped(request, visible, samples, openVariant, notes);
    const twin = exact || swapped ? null : await openVariant(faithfulTwin(request), {});

    const names = original.model.graph.outputs.map(({ name }) => name);
    const drift = names.map((name) => new DistanceMeter(name));
    const structure = names.map((name) => new DistanceMeter(name));
    const siteDrift = sites.map(({ site }) => new DistanceMeter(site.name));
    const siteStructure = sites.map(({ site }) => new DistanceMeter(site.name));
    let runs = 0;
    for await (const feeds of samples) {
      request.progress?.('verifying', 1 - 1 / (1 + runs / 4));
      const a = await refusedBy('original', first.run(feeds));
      const b = await refusedBy('converted', second.run(feeds));
      names.forEach((name, i) => drift[i]!.add(a[name]!, b[name]!));
      sites.forEach((site, i) => addSite(siteDrift[i]!, a, site.original, b, site.converted));
      if (swapped) {
        const s = await swapped.session.run(feeds);
        names.forEach((name, i) => structure[i]!.add(s[name]!, b[name]!));
        sites.forEach((site, i) => addSite(siteStructure[i]!, s, site.original, b, site.converted));
      }
      if (twin) {
        const t = await refusedBy('converted', twin.run(feeds));
        names.forEach((name, i) => structure[i]!.add(a[name]!, t[name]!));
      }
      runs++;
    }
    const results = (meters: readonly DistanceMeter[]): Distance[] => meters.map((meter) => meter.result());
    const siteDistances: SiteDistance[] = sites.map(({ site }, i) => ({
      site: site.name,
      depth: site.depth,
      drift: siteDrift[i]!.result(),
      structure: swapped ? siteStructure[i]!.result() : null,
    }));
    const tolerance = toleranceOf(replaced, original.model);
    const driftResults = results(drift);
    const structureResults = swapped || twin ? results(structure) : [];
    noteUndefined(driftResults, notes);
    const inputs = `${runs} ${originOf(request)}`;
    const structureSites = swapped ? results(siteStructure) : [];
    let judgement = judge(mode, driftResults, structureResults, structureSites, tolerance, inputs);
    let beside: Distance[] = [];
    const choice = choosingNode(original.model.graph);
    const base = exact ? {} : (swapped?.variant ?? null);
    const comparable = mode !== null && base !== null && visible.length === replaced.length;
    if (!judgement.passed && choice !== null && exact && visible.length < replaced.length) {
      const own = await ownDifferences(original, samples, runtime);
      judgement = judgeByOwn(driftResults, own, choice, inputs) ?? judgement;
    } else if (!judgement.passed && choice !== null && comparable) {
      beside = await compareBeside(request, base, samples, runtime);
      const far = exact ? driftResults : structureResults;
      judgement = judgeBeside(far, beside, tolerance, choice, inputs) ?? judgement;
    }
    return {
      ...judgement,
      beside,
      mode,
      operator: runtime.operator,
      samples: samples.description,
      runs,
      tolerance,
      drift: driftResults,
      structure: structureResults,
      sites: siteDistances,
      notes,
    };
  } finally {
    for (const session of open) await session.close();
  }
}

function originOf({ source, data, seed = 1 }: VerifyRequest): string {
  if (source) return `inputs (${source.description})`;
  return data === undefined ? `random inputs (seed ${seed})` : `inputs from ${data}`;
}

function addSite(meter: DistanceMeter, a: Outputs, nameA: string, b: Outputs, nameB: string): void {
  meter.add(a[nameA]!, b[nameB]!);
}

/** Largest relative difference that passes for these sites. */
export function toleranceOf(replaced: readonly Replacement[], model: Model): number {
  const types = new Set(replaced.map(({ site }) => site.dtype));
  if (types.has('bfloat16')) return TOLERANCE.bfloat16;
  const FLOAT16 = 10;
  const half = [...model.graph.initializers.values()].some(({ dataType }) => dataType === FLOAT16);
  return types.has('float16') || half ? TOLERANCE.float16 : TOLERANCE.float32;
}

function noteUndefined(distances: readonly Distance[], notes: string[]): void {
  for (const { name, undefinedInReference, elements } of distances) {
    if (undefinedInReference === 0) continue;
    notes.push(
      `output "${name}": the original gives NaN in ${undefinedInReference} of ${elements} elements; those were not compared`,
    );
  }
}

/**
 * The same sites rewritten with a normalised sigmoid, which has to give what the original gives: it proves queries, keys,
 * values, masks and scale where no exchanged original can be made.
 */
function faithfulTwin({ original, replaced }: VerifyRequest): PlacedModel {
  const names = new Set(replaced.map(({ site }) => site.name));
  const twin = convert(original.model, { mode: 'faithful', sites: ({ name }) => names.has(name) });
  return { model: openModel(twin.toBytes(), original.model.external), folder: original.folder };
}

/** The exchanged original; `null`, with a note, where a site cannot be spelled that way. */
async function openSwapped(
  request: VerifyRequest,
  visible: readonly Replacement[],
  samples: SampleSource,
  openVariant: (model: PlacedModel, variant: Variant) => Promise<Session>,
  notes: string[],
): Promise<{ session: Session; variant: Variant } | null> {
  const { original, replaced } = request;
  const impossible = replaced.filter(
    (replacement) => replacement.site.kind !== 'sigmoid' && !isSwappable(replacement),
  );
  if (impossible.length > 0) {
    notes.push(
      `structure shown by the same rewrite in mode faithful: ${impossible.map(({ site }) => site.name).join(', ')} cannot be spelled with an exchanged activation`,
    );
    return null;
  }
  try {
    const sites = await swapSites(request, visible.filter(isSwappable), samples, openVariant);
    const outputs = visible.map(({ output }) => output.original);
    const variant = { ...swapActivations(original.model, sites), outputs };
    return { session: await openSpelled(original, variant, samples, openVariant), variant };
  } catch (error) {
    if (!(error instanceof SwapRefusal)) throw error;
    notes.push(`structure shown by the same rewrite in mode faithful: ${error.message}`);
    return null;
  }
}

/** Distances of the values that the conversion makes anew; none where a site's own is not among them. */
async function compareBeside(
  { original, converted, replaced }: VerifyRequest,
  variant: Variant,
  samples: SampleSource,
  runtime: Runtime,
): Promise<Distance[]> {
  const distances = await distancesBeside(original, variant, converted.model, samples, runtime);
  const paired = new Set(distances.map(({ name }) => name));
  return replaced.every(({ output }) => paired.has(output.original)) ? distances : [];
}

/** How far the original's outputs are from its own, run without the runtime's optimisations. */
async function ownDifferences(
  { model, folder }: PlacedModel,
  samples: SampleSource,
  runtime: Runtime,
): Promise<Distance[]> {
  const bytes = variantOf(model, {});
  const meters = model.graph.outputs.map(({ name }) => new DistanceMeter(name));
  const [first, second] = [await runtime.open(bytes, folder), await runtime.open(bytes, folder, true)];
  try {
    for await (const feeds of samples) {
      const [a, b] = [await first.run(feeds), await second.run(feeds)];
      for (const meter of meters) meter.add(a[meter.name]!, b[meter.name]!);
    }
    return meters.map((meter) => meter.result());
  } finally {
    await first.close();
    await second.close();
  }
}

/** A session of the exchanged original that has run once; a {@link SwapRefusal} where the spelling does not suit the graph. */
async function openSpelled(
  original: PlacedModel,
  variant: Variant,
  samples: SampleSource,
  openVariant: (model: PlacedModel, variant: Variant) => Promise<Session>,
): Promise<Session> {
  try {
    const session = await openVariant(original, variant);
    for await (const feeds of firstRuns(samples, 1)) await session.run(feeds);
    return session;
  } catch (error) {
    const text = (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
    throw new SwapRefusal(`the exchanged graph does not run (${text.slice(0, 200)})`);
  }
}

/** Learns types and layouts of the sites' scores from one run. */
async function swapSites(
  { original, parametersOf }: VerifyRequest,
  replacements: readonly Replacement[],
  samples: SampleSource,
  openVariant: (model: PlacedModel, variant: Variant) => Promise<Session>,
): Promise<SwapSite[]> {
  if (replacements.length === 0) return [];
  const scores = replacements.map(({ site }) => site.values.scores!);
  const session = await openVariant(original, { outputs: scores, outputsOnly: true });
  for await (const feeds of samples) {
    const values = await session.run(feeds);
    const sites = replacements.map((replacement, i) => ({
      replacement,
      parameters: parametersOf?.(replacement.site.name) ?? {},
      scores: values[scores[i]!]!,
    }));
    // Where scores are centred for a faithful bias the site is softmax to within the bound: the original's own stays.
    return sites.filter(({ parameters }) => !(parameters.centreScores && parameters.normalize));
  }
  return [];
}

/**
 * The original with only the activations of its replaced sites exchanged, and with the weights of the converted model where
 * these carry factors: the result in standard operators.
 */
export async function exchangedOriginal(request: VerifyRequest, runtime: Runtime): Promise<Uint8Array> {
  const { original, replaced, data, seed = 1 } = request;
  const impossible = replaced.filter(
    (replacement) => replacement.site.kind !== 'sigmoid' && !isSwappable(replacement),
  );
  if (impossible.length > 0) {
    throw new SwapRefusal(
      `no form in standard operators for ${impossible.map(({ site }) => site.name).join(', ')}`,
    );
  }
  const open: Session[] = [];
  const openVariant = async ({ model, folder }: PlacedModel, variant: Variant): Promise<Session> => {
    const session = await runtime.open(variantOf(model, variant), folder);
    open.push(session);
    return session;
  };
  try {
    const samples = await samplesFor(original, await openVariant(original, {}), { data, seed });
    const sites = await swapSites(request, replaced.filter(isSwappable), samples, openVariant);
    const variant = foldedVariant(request, sites);
    await openSpelled(original, variant, samples, openVariant);
    return variantOf(original.model, variant);
  } finally {
    for (const session of open) await session.close();
  }
}

/** Exchanges the activations behind the weights of the converted model, as far as the original has these weights itself. */
function foldedVariant(
  { original: { model }, converted }: VerifyRequest,
  sites: readonly SwapSite[],
): Variant {
  const nodeOf = (name: string): GraphNode | undefined => {
    const node = model.graph.producer(name);
    return node && isOp(node, 'Constant') ? node : undefined;
  };
  const isOwn = (name: string): boolean => model.graph.initializers.has(name) || nodeOf(name) !== undefined;
  const names = new Set<string>();
  const behind = sites.map((site) => {
    const { foldings } = site.replacement;
    const carried = foldings.flatMap(({ weights }) => weights);
    if (!carried.every(isOwn)) return site;
    for (const name of carried) names.add(name);
    return { ...site, parameters: parametersBehind(site.parameters, foldings) };
  });
  const { exchange, initializers } = swapActivations(model, behind);
  const removed = [...names].flatMap((name): [GraphNode, []][] => {
    const node = nodeOf(name);
    return node ? [[node, []]] : [];
  });
  const { graph, source } = converted.model;
  const weights = [...names].map((name) => {
    const { span } = graph.initializers.get(name)!;
    return proto.onnx.TensorProto.decode(source.read(span.start, span.end));
  });
  return { exchange: new Map([...exchange, ...removed]), initializers: [...initializers, ...weights] };
}
