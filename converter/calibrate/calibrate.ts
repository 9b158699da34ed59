/**
 * Fits sigmoid attention to a softmax model on sample inputs, layer after layer: each layer sees what its converted
 * predecessors really give, so that it can make up for them. Deterministic by seed.
 */
import type { Attributes } from '../../op/schema.js';
import { RandomNumbers } from '../data/random-numbers.js';
import type { SampleSource } from '../data/source.js';
import type { Replacement, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import type { PlacedModel } from '../verify/verify.js';
import type { Runtime } from '../verify/runtime.js';
import { collected, isVisible, openCollector } from './collect.js';
import { fitHead, headError, type HeadFit, type HeadRows } from './fit.js';
import { centredRows, RowStore } from './head-rows.js';

export interface SiteFit {
  readonly site: string;
  readonly depth: number;
  readonly heads: readonly HeadFit[];
  /** |y - o| / |o| over all heads: after fitting, and with the paper's b = -log n. */
  readonly error: number;
  readonly paperError: number;
  /** With the mean of each row's scores and of the values taken out. */
  readonly centred: boolean;
  /** Left in faithful mode. */
  readonly kept: boolean;
}

export interface CalibrationRequest {
  readonly placed: PlacedModel;
  readonly samples: SampleSource;
  readonly runtime: Runtime;
  readonly seed: number;
  /** The `keep` sites with the largest error stay faithful. */
  readonly keep: number;
  readonly faithful: (replacement: Replacement) => SiteParameters;
  readonly progress?: (label: string, fraction: number) => void;
}

export interface Calibration {
  readonly parameters: ReadonlyMap<string, SiteParameters>;
  readonly sites: readonly SiteFit[];
}

/** Centring costs five small nodes, so it has to lower the error by a tenth. */
const WORTH_CENTRING = 0.9;

const UNFITTED = { bias: 0, scale: 1, gain: 1 } as const;

export async function calibrate(request: CalibrationRequest): Promise<Calibration> {
  const sites = calibratedSites(request);
  if (request.keep === 0) return fitAll(request, sites, new Set());
  const alone = await fitAlone(request, sites);
  const worst = [...alone].sort((a, b) => b.error - a.error).slice(0, request.keep);
  const kept = new Set(worst.map(({ site }) => site));
  const { parameters, sites: fitted } = await fitAll(request, sites, kept);
  const errors = alone.filter(({ site }) => kept.has(site)).map((fit) => ({ ...fit, kept: true }));
  return { parameters, sites: [...fitted, ...errors].sort((a, b) => a.depth - b.depth) };
}

/** Softmax and fused sites, first to last. */
function calibratedSites({ placed, faithful }: CalibrationRequest): Replacement[] {
  const { replaced } = convert(placed.model, { mode: 'faithful' });
  return replaced
    .filter((replacement) => replacement.site.kind !== 'sigmoid' && isVisible(replacement))
    .filter((replacement) => faithful(replacement) !== undefined)
    .sort((a, b) => a.site.depth - b.site.depth);
}

async function fitAll(
  request: CalibrationRequest,
  sites: readonly Replacement[],
  kept: ReadonlySet<string>,
): Promise<Calibration> {
  const parameters = new Map(
    sites.map((replacement) => [replacement.site.name, request.faithful(replacement)]),
  );
  const fits: SiteFit[] = [];
  const fitted = sites.filter(({ site }) => !kept.has(site.name));
  for (const [index, { site }] of fitted.entries()) {
    request.progress?.(`calibrating ${site.name}`, index / fitted.length);
    const [store] = await gather(request, parameters, [site.name]);
    const { fit, biasMode } = fitSite(site.name, site.depth, store!);
    fits.push(fit);
    parameters.set(site.name, siteParameters(fit, biasMode));
  }
  return { parameters, sites: fits };
}

/** Every site on the inputs that the original gives it, to tell which ones sigmoid suits least. */
async function fitAlone(request: CalibrationRequest, sites: readonly Replacement[]): Promise<SiteFit[]> {
  const parameters = new Map(
    sites.map((replacement) => [replacement.site.name, request.faithful(replacement)]),
  );
  const stores = await gather(
    request,
    parameters,
    sites.map(({ site }) => site.name),
  );
  return sites.map(({ site }, index) => fitSite(site.name, site.depth, stores[index]!).fit);
}

interface GatheredRows {
  readonly store: RowStore;
  readonly biasMode: Attributes['bias_mode'];
  readonly softcap: number;
  /** Scores and values can be centred: every row sees all keys, and no head shares them. */
  readonly canCentre: boolean;
}

async function gather(
  { placed, samples, runtime, seed }: CalibrationRequest,
  parameters: ReadonlyMap<string, SiteParameters>,
  names: readonly string[],
): Promise<GatheredRows[]> {
  const conversion = convert(placed.model, {
    mode: 'calibrated',
    parameters: ({ name }) => parameters.get(name),
  });
  const replaced = names.map((name) => conversion.replaced.find(({ site }) => site.name === name)!);
  const rows = replaced.map((replacement, index) => {
    const biasMode = biasModeOf(replacement);
    const softcap = Number(replacement.attributes['softcap'] ?? 0);
    const withPast = replacement.site.cache || 'past_key' in replacement.inputs;
    const seesAllKeys = biasMode === 'neg_log_total' && replacement.site.mask.length === 0;
    const { heads, kvHeads } = replacement.site;
    const canCentre = seesAllKeys && softcap === 0 && !withPast && heads !== null && heads === kvHeads;
    return { store: new RowStore(biasMode, new RandomNumbers(seed + index)), biasMode, softcap, canCentre };
  });
  const collector = await openCollector(conversion.toBytes(), placed.model, placed.folder, replaced, runtime);
  try {
    for await (const calls of collected(collector, samples)) {
      calls.forEach(({ call }, index) => rows[index]!.store.add(call));
    }
  } finally {
    await collector.close();
  }
  return rows;
}

/** What b = -log n counts: the keys that a row may see, where the operator knows them. */
export function biasModeOf({ attributes, inputs }: Replacement): NonNullable<Attributes['bias_mode']> {
  const windowed = ['left_window_size', 'right_window_size'].some(
    (name) => Number(attributes[name] ?? -1) >= 0,
  );
  if (attributes['is_causal'] === 1 || windowed) return 'neg_log_visible';
  return 'nonpad_kv_seqlen' in inputs ? 'neg_log_valid' : 'neg_log_total';
}

function fitSite(
  site: string,
  depth: number,
  rows: GatheredRows,
): { fit: SiteFit; biasMode: Attributes['bias_mode'] } {
  const blocks = Array.from({ length: rows.store.heads }, (_, head) => rows.store.head(head));
  const energy = blocks.reduce((sum, own) => sum + energyOf(own), 0);
  const relative = (loss: number): number => (energy > 0 ? Math.sqrt(loss / energy) : 0);
  const plain = fitHeads(blocks, rows.softcap);
  const centred = rows.canCentre
    ? fitHeads(
        blocks.map((own) => own.map(centredRows)),
        rows.softcap,
      )
    : plain;
  const isCentred = relative(centred.loss) < WORTH_CENTRING * relative(plain.loss);
  const { heads, loss } = isCentred ? centred : plain;
  const paperLoss = blocks.reduce(
    (sum, own) => sum + energyOf(own) * headError(own, rows.softcap, UNFITTED) ** 2,
    0,
  );
  const errors = { error: relative(loss), paperError: relative(paperLoss) };
  return { fit: { site, depth, heads, ...errors, centred: isCentred, kept: false }, biasMode: rows.biasMode };
}

const energyOf = (blocks: readonly HeadRows[]): number =>
  blocks.reduce((sum, { target }) => sum + target.reduce((s, x) => s + x * x, 0), 0);

/** The fit of each head, and the sum of squared errors over all. */
function fitHeads(
  blocks: readonly (readonly HeadRows[])[],
  softcap: number,
): { heads: readonly HeadFit[]; loss: number } {
  const heads = blocks.map((own) => fitHead(own, softcap, UNFITTED));
  const loss = heads.reduce((sum, fit, head) => sum + energyOf(blocks[head]!) * fit.error ** 2, 0);
  return { heads, loss };
}

function siteParameters({ heads, centred }: SiteFit, biasMode: Attributes['bias_mode']): SiteParameters {
  return {
    normalize: false,
    bias: 0,
    biasMode: biasMode ?? 'none',
    headBias: heads.map(({ bias }) => bias),
    headScale: heads.map(({ scale }) => scale),
    headGain: heads.map(({ gain }) => gain),
    centreScores: centred,
    centreValues: centred,
  };
}
