/** The rows of sites, gathered from runs of the model whose earlier sites are converted already. */
import type { Attributes } from '../../op/schema.js';
import { RandomNumbers } from '../data/random-numbers.js';
import type { SampleSource } from '../data/source.js';
import type { Replacement, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import type { PlacedModel } from '../verify/verify.js';
import type { Runtime } from '../verify/runtime.js';
import { collected, openCollector } from './collect.js';
import { MOMENTS } from './head-parameters.js';
import { RowStore } from './head-rows.js';

export interface GatherRequest {
  readonly placed: PlacedModel;
  readonly samples: SampleSource;
  readonly runtime: Runtime;
  readonly seed: number;
}

export interface GatheredRows {
  readonly store: RowStore;
  readonly biasMode: NonNullable<Attributes['bias_mode']>;
  readonly softcap: number;
  readonly can: Abilities;
}

/** What the site's surroundings allow, see {@link SiteParameters}. */
export interface Abilities {
  /** Moments of a row's scores that may enter its row term. */
  readonly moments: number;
  readonly valueShift: boolean;
  readonly centreValues: boolean;
}

/** @param names sites, all of which are seen in the same runs */
export async function gather(
  { placed, samples, runtime, seed }: GatherRequest,
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
    return {
      store: new RowStore(biasMode, new RandomNumbers(seed + index)),
      biasMode,
      softcap: Number(replacement.attributes['softcap'] ?? 0),
      can: abilitiesOf(replacement),
    };
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
  if (attributes['is_causal'] === 1 || isWindowed(attributes)) return 'neg_log_visible';
  return 'nonpad_kv_seqlen' in inputs ? 'neg_log_valid' : 'neg_log_total';
}

const isWindowed = (attributes: Replacement['attributes']): boolean =>
  ['left_window_size', 'right_window_size'].some((name) => Number(attributes[name] ?? -1) >= 0);

function abilitiesOf({ site, attributes, inputs }: Replacement): Abilities {
  const { heads, kvHeads } = site;
  const isOwnHead = heads !== null && heads === kvHeads;
  const keepsKeys = site.cache || 'past_key' in inputs;
  const isPadded = 'nonpad_kv_seqlen' in inputs;
  const isCausal = attributes['is_causal'] === 1 && !isWindowed(attributes);
  const seesAllKeys =
    biasModeOf({ attributes, inputs } as Replacement) === 'neg_log_total' && site.mask.length === 0;
  const isUncapped = Number(attributes['softcap'] ?? 0) === 0;
  const isBare = !keepsKeys && !isPadded;
  return {
    moments: !isBare ? 0 : isCausal ? 1 : seesAllKeys && isOwnHead && isUncapped ? MOMENTS : 0,
    valueShift: isOwnHead && !keepsKeys,
    centreValues: seesAllKeys && isOwnHead && !keepsKeys,
  };
}
