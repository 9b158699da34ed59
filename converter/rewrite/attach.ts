/**
 * Chooses where the operator attaches to the graph: which upstream values feed it, which downstream value it yields, in which
 * rank and data type, so that the fewest reshapes, transposes and casts remain.
 */
import { isHalf, type Link } from '../attention/chains.js';
import type { Derived } from '../attention/derive.js';
import { Refused } from '../attention/form.js';
import type { Atom, Axis } from '../attention/layout.js';
import { DataType, dataTypeName } from '../onnx/tensor.js';
import { planRelayout, SizeSources, type Relayout } from './relayout.js';

export interface Feed {
  readonly link: Link;
  readonly relayout: Relayout;
  /** The value has to be converted to the operator's type. */
  readonly casts: boolean;
}

export interface Attachment {
  readonly rank: 3 | 4;
  /** Element type of Q, K, V and Y. */
  readonly type: number;
  readonly query: Feed;
  readonly key: Feed;
  readonly value: Feed;
  readonly output: Feed;
  readonly kvHeads: readonly Atom[];
  /** Nodes added less nodes that fall away. */
  readonly cost: number;
}

/** An Expand moves data that a reshape would not. */
const EXPAND_COST = 4;

/** Attachments found so far: inspecting and converting ask for the same ones. */
const known = new WeakMap<Derived, Map<3 | 4, Attachment | null>>();

export function attach(site: Derived, rank: 3 | 4): Attachment | null {
  const found = known.get(site) ?? new Map<3 | 4, Attachment | null>();
  known.set(site, found);
  const before = found.get(rank);
  if (before !== undefined) return before;
  const attachment = search(site, rank);
  found.set(rank, attachment);
  return attachment;
}

function search(site: Derived, rank: 3 | 4): Attachment | null {
  const { batch, heads, rows, newKeys, channels, valueChannels } = site;
  if (rank === 3 && !isFixed(heads)) return null;
  const type = operatorType(site);
  const sizes = new SizeSources(site);
  const arrange = (head: readonly Atom[], position: readonly Atom[], channel: readonly Atom[]): Axis[] =>
    rank === 4 ? [batch, head, position, channel] : [batch, position, [...head, ...channel]];
  const query = feed(sizes, site.query, arrange(heads, rows, channels), type);
  const output = query && drain(sizes, site.output, arrange(heads, rows, valueChannels), type);
  if (query === null || output === null) return null;
  let best: Attachment | null = null;
  for (let count = heads.length; count >= 0; count--) {
    const kvHeads = heads.slice(0, count);
    if (site.past !== null && !site.space.equal(kvHeads, site.past.heads)) continue;
    const key = feed(sizes, site.key, arrange(kvHeads, newKeys, channels), type);
    const value = key && feed(sizes, site.value, arrange(kvHeads, newKeys, valueChannels), type);
    if (key === null || value === null) continue;
    const cost = query.cost + key.cost + value.cost + output.cost;
    if (best === null || cost < best.cost) best = { rank, type, query, key, value, output, kvHeads, cost };
  }
  return best;
}

function isFixed(atoms: readonly Atom[]): boolean {
  return atoms.every((atom) => atom.size.every((size) => size === atom.size[0]));
}

function feed(
  sizes: SizeSources,
  chain: readonly Link[],
  target: readonly Axis[],
  type: number,
): (Feed & { cost: number }) | null {
  let best: (Feed & { cost: number }) | null = null;
  for (const link of chain) {
    const casts = link.type !== type;
    if (casts && isHalf(type)) continue;
    const relayout = planRelayout(link.axes, target, sizes.space, false);
    if (relayout?.isReadable(sizes) !== true) continue;
    const repeats = relayout.repeats ? EXPAND_COST : 0;
    const cost = relayout.cost + repeats + (casts ? 1 : 0) - link.passed.length;
    if (best === null || cost < best.cost) best = { link, relayout, casts, cost };
  }
  return best;
}

function drain(
  sizes: SizeSources,
  chain: readonly Link[],
  source: readonly Axis[],
  type: number,
): (Feed & { cost: number }) | null {
  let best: (Feed & { cost: number }) | null = null;
  for (const link of chain) {
    const casts = link.type !== type;
    if (casts && isHalf(type)) continue;
    const relayout = planRelayout(source, link.axes, sizes.space, false);
    if (relayout?.isReadable(sizes) !== true || relayout.repeats) continue;
    const cost = relayout.cost + (casts ? 1 : 0) - link.passed.length;
    if (best === null || cost < best.cost) best = { link, relayout, casts, cost };
  }
  return best;
}

/**
 * Half precision only where queries, keys, values and the result all exist in it, so that nothing is rounded that the model
 * keeps exact; else float.
 */
export function operatorType(site: Derived): number {
  const chains = [site.query, site.key, site.value, site.output];
  for (const chain of chains) {
    const { type, name } = chain[0]!;
    if (type !== DataType.float && !isHalf(type)) {
      throw new Refused(
        'data-type',
        `'${name}' is ${dataTypeName(type)}; the operator takes float32, float16 and bfloat16`,
        [],
      );
    }
  }
  for (const half of [DataType.float16, DataType.bfloat16]) {
    if (chains.every((chain) => chain.some((link) => link.type === half))) return half;
  }
  return DataType.float;
}
