/**
 * Moves a site's temperature into the weights that make its queries and its gain into those that make its values, where
 * everything between is linear in them and nothing else reads it. The site's other parameters are restated for the new
 * queries and values, so that the site means the same: exactly in real numbers, one rounding a weight in float32.
 */
import type { SpelledSite } from '../attention/analyse.js';
import type { Link } from '../attention/chains.js';
import { shapeReaders, type Derived } from '../attention/derive.js';
import { findDead } from '../attention/liveness.js';
import type { Folding, SiteParameters } from '../conversion.js';
import type { Knowledge } from '../graph/knowledge.js';
import type { GraphNode } from '../graph/node.js';
import { Blocked, factorsUpstream, MOST_ELEMENTS } from './fold-cone.js';
import type { FoldedWeights } from './fold-weights.js';

/** Key of the node's metadata under which a conversion writes down what its weights carry, as JSON. */
export const FOLDED_KEY = 'ort.sigmoid.folded';

export interface FoldedSite {
  /** What is left for the operator and the nodes around it. */
  readonly parameters: SiteParameters;
  readonly foldings: readonly Folding[];
}

export function foldSite(
  { site, anchor }: SpelledSite,
  given: SiteParameters,
  knowledge: Knowledge,
  weights: FoldedWeights,
): FoldedSite {
  const foldings: Folding[] = [];
  if (anchor.kind !== 'softmax') return { parameters: given, foldings };
  const attempt = (
    factor: Folding['factor'],
    numbers: readonly number[],
    fold: () => Iterable<string>,
  ): void => {
    try {
      foldings.push({ factor, numbers, weights: [...fold()], reason: null });
    } catch (error) {
      if (!(error instanceof Blocked)) throw error;
      foldings.push({ factor, numbers, weights: [], reason: error.message });
    }
  };
  const push = (chain: readonly Link[], reader: GraphNode, numbers: readonly number[]): Iterable<string> => {
    if (site.graph.parent !== null) throw new Blocked('the site is in a nested graph');
    if (site.prepare !== null || site.complete !== null)
      throw new Blocked('queries, keys and values are parts of one operator');
    const allow = (stored: string): void => weights.allow(stored);
    const operand = { graph: site.graph, name: chain[0]!.name, reader, allow };
    const found = factorsUpstream(operand, knowledge, (at) => perElement(site, chain[0]!, numbers, at));
    weights.add(found);
    return found.keys();
  };
  const { headScale, headGain } = given;
  const single = (values: readonly number[]): number[] => values.map(Math.fround);
  if (headScale?.some((value) => value !== 1)) {
    const temperature = single(headScale);
    attempt('temperature', temperature, () => {
      if (site.form.softcap !== 0) throw new Blocked('a soft cap follows');
      if (given.centreScores) throw new Blocked('the scores are centred');
      if (!temperature.every((value) => value > 0 && Number.isFinite(value)))
        throw new Blocked('a temperature is not positive');
      const dead = findDead(site.graph, [site.valueProduct, ...shapeReaders(site)], new Set());
      if (!dead.has(site.scoreProduct)) throw new Blocked('the scores are read by something else');
      return push(site.query, site.scoreProduct, temperature);
    });
  }
  if (headGain?.some((value) => value !== 1)) {
    const gain = single(headGain);
    attempt('gain', gain, () => {
      if (site.past !== null) throw new Blocked('the values are cached');
      if (given.centreValues) throw new Blocked('the mean of the values is added behind the gain');
      if (!gain.every((value) => Number.isFinite(value))) throw new Blocked('a gain is not finite');
      return push(site.value, site.valueProduct, gain);
    });
  }
  return { parameters: parametersBehind(given, foldings), foldings };
}

/** A site's parameters for the queries and values that the changed weights give. */
export function parametersBehind(given: SiteParameters, foldings: readonly Folding[]): SiteParameters {
  let parameters = given;
  for (const { factor, numbers, reason } of foldings) {
    if (reason !== null) continue;
    parameters =
      factor === 'gain' ? withoutGain(parameters, numbers) : withoutTemperature(parameters, numbers);
  }
  return parameters;
}

/** With queries q' = t q: w . q = (w / t) . q', and the scores' mean, variance and deviation grow by t, t^2 and t. */
function withoutTemperature({ headScale: _, ...rest }: SiteParameters, t: readonly number[]): SiteParameters {
  const { rowQuery, rowMoments } = rest;
  return {
    ...rest,
    ...(rowQuery ? { rowQuery: rowQuery.map((row, head) => row.map((value) => value / t[head]!)) } : {}),
    ...(rowMoments
      ? {
          rowMoments: rowMoments.map(([mean = 0, variance = 0, deviation = 0], head) => [
            mean / t[head]!,
            variance / t[head]! ** 2,
            deviation / t[head]!,
          ]),
        }
      : {}),
  };
}

/** With values v' = g v: g W (v + u) = W (v' + g u). */
function withoutGain({ headGain: _, ...rest }: SiteParameters, g: readonly number[]): SiteParameters {
  const { valueShift } = rest;
  if (!valueShift) return rest;
  return { ...rest, valueShift: valueShift.map((row, head) => row.map((value) => value * g[head]!)) };
}

/** The factor of each element of an operand; heads that share an element must agree. */
function perElement(
  site: Derived,
  { name, axes }: Link,
  numbers: readonly number[],
  environment: number,
): Float32Array {
  const heads = site.space.resolve(site.heads);
  const size = (atom: (typeof heads)[number]): number => atom.size[environment]!;
  const total = heads.reduce((product, atom) => product * size(atom), 1);
  if (total !== numbers.length) throw new Blocked(`'${name}' has another number of heads`);
  const stride = new Map<(typeof heads)[number], number>();
  let step = total;
  for (const atom of heads) stride.set(atom, (step /= size(atom)));
  const resolved = site.space.resolveAll(axes);
  const present = new Set(resolved.flat());
  const shared = heads
    .filter((atom) => !present.has(atom))
    .reduce(
      (offsets, atom) =>
        offsets.flatMap((offset) =>
          Array.from({ length: size(atom) }, (_, i) => offset + i * stride.get(atom)!),
        ),
      [0],
    );
  let places = [0];
  for (const atom of resolved.flat()) {
    const own = stride.get(atom) ?? 0;
    if (places.length * size(atom) > MOST_ELEMENTS)
      throw new Blocked(`'${name}' is too large to be followed`);
    places = places.flatMap((place) => Array.from({ length: size(atom) }, (_, i) => place + i * own));
  }
  return Float32Array.from(places, (place) => {
    const factor = numbers[place]!;
    if (shared.some((offset) => numbers[place + offset] !== factor))
      throw new Blocked(`query heads that share '${name}' differ in their factors`);
    return factor;
  });
}

/** The factors that weights carry as metadata of the site's node: {@link SiteParameters} by name. */
export function foldedMetadata(foldings: readonly Folding[]): Record<string, string> {
  const folded = foldings.filter(({ reason }) => reason === null);
  if (folded.length === 0) return {};
  const entries = folded.map(({ factor, numbers }) => [
    factor === 'gain' ? 'headGain' : 'headScale',
    numbers,
  ]);
  return { [FOLDED_KEY]: JSON.stringify(Object.fromEntries(entries)) };
}
