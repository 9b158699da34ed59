/**
 * Keys and values of earlier calls. A model often joins them to the new ones with a Concat along the positions; where these
 * joins serve the site alone, the operator takes past and new keys apart and yields the joined ones itself.
 */
import type { Knowledge } from '../graph/knowledge.js';
import { axisAttribute, isOp, type GraphNode } from '../graph/node.js';
import { operatorType } from '../rewrite/attach.js';
import type { CacheForm } from '../site.js';
import { onlyPart, upstream, type Link } from './chains.js';
import type { Derived } from './derive.js';
import type { Atom, Axis } from './layout.js';
import { findDead } from './liveness.js';

/** How keys and values of earlier calls reach the site, and whether it hands them on. */
export function cacheForm(site: Derived, knowledge: Knowledge): CacheForm {
  const { past } = site;
  if (site.keepsBuffer === true) return 'past in a buffer';
  if (past?.key) return past.presentKey || past.presentValue ? 'past/present' : 'past';
  if (site.key.some((link) => joinOf(site, link, knowledge) !== null)) return 'past joined by the model';
  return past === null ? 'none' : 'present';
}

/** The Concat along the key positions that makes the value. */
function joinOf(site: Derived, link: Link, knowledge: Knowledge): GraphNode | null {
  const node = link.graph.producer(link.name);
  const rank = link.axes.length;
  if (node === undefined || !isOp(node, 'Concat') || onlyPart(node, knowledge) !== null) return null;
  const axis = site.space.resolve(link.axes[axisAttribute(node, 0, rank)]!);
  const keys = site.space.resolve(site.keys);
  return axis.length > 0 && axis.every((atom) => keys.includes(atom)) ? node : null;
}

/** A Concat of a past and new rows in the operator's layout of a cache, [batch, kv heads, positions, channels]. */
interface Join {
  /** The Concat, and after it nodes that only give its result another name. */
  readonly nodes: readonly GraphNode[];
  readonly past: string;
  readonly fresh: string;
  readonly axes: readonly Axis[];
  /** Place of the joined value in the chain. */
  readonly at: Link;
}

/**
 * The same site with past and new keys apart; `null` where the model does not join them in the operator's layout and type,
 * or where a factor differs from key to key.
 */
export function withPast(site: Derived, knowledge: Knowledge): Derived | null {
  if (site.past !== null || site.nonpad !== null) return null;
  const { space, graph } = site;
  const key = findJoin(site, site.key, site.channels, knowledge);
  const value = findJoin(site, site.value, site.valueChannels, knowledge);
  if (key === null || value === null || key.nodes[0] === value.nodes[0]) return null;
  const [batch, kvHeads] = key.axes as [Axis, Axis];
  if (!space.equal(batch, value.axes[0]!) || !space.equal(kvHeads, value.axes[1]!)) return null;
  const heads = headsOf(site, batch, kvHeads);
  if (heads === null) return null;
  const [fresh, past, valuePast] = [key.fresh, key.past, value.past].map(
    (name) => knowledge.sizes(graph, name)![2]!,
  );
  const fits = space
    .sizeOf(site.keys)
    .every((size, i) => past![i]! + fresh![i]! === size && valuePast![i] === past![i]);
  const factors = [...site.form.scaleTensors, ...site.form.gainTensors];
  const differsByKey = factors.some(({ tensor }) =>
    space.resolveAll(tensor.axes).some((axis) => axis.some((atom) => site.keys.includes(atom))),
  );
  if (!fits || differsByKey) return null;

  const newKeys = space.axis(fresh!);
  const chain = (join: Join, channels: Axis): Link[] => {
    const axes = [batch, kvHeads, newKeys, channels];
    return upstream(graph, join.fresh, axes, knowledge, space, { foldScale: false }).map((link) => ({
      ...link,
      factor: join.at.factor,
      passed: [...join.at.passed, join.nodes[0]!, ...link.passed],
    }));
  };
  const apart: Derived = {
    ...site,
    batch: space.resolve(batch),
    heads,
    key: chain(key, site.channels),
    value: chain(value, site.valueChannels),
    newKeys,
    past: {
      key: key.past,
      value: value.past,
      presentKey: presentName(key),
      presentValue: presentName(value),
      heads: space.resolve(kvHeads),
      joins: [...key.nodes, ...value.nodes],
    },
  };
  const type = operatorType(apart);
  const names = [key.past, key.nodes[0]!.outputs[0]!, value.past, value.nodes[0]!.outputs[0]!];
  return names.every((name) => knowledge.type(graph, name) === type) ? apart : null;
}

/** The site's heads as the cache tells them from the batch; `null` where the two do not fit together. */
function headsOf(site: Derived, batch: Axis, kvHeads: Axis): readonly Atom[] | null {
  const { space } = site;
  if (space.equal(batch, site.batch)) {
    const heads = space.resolve(site.heads);
    return space.resolve(kvHeads).every((atom, i) => atom === heads[i]) ? heads : null;
  }
  // The model keeps batch and heads in one axis around the product, and the cache tells them apart.
  return site.heads.length === 0 && space.equal([...batch, ...kvHeads], site.batch)
    ? space.resolve(kvHeads)
    : null;
}

/** The name under which the joined rows are read: that of a graph output, where one is among them. */
function presentName({ nodes }: Join): string {
  const names = nodes.map((node) => node.outputs[0]!);
  return names.find((name) => nodes[0]!.graph.isOutput(name)) ?? names[0]!;
}

function findJoin(site: Derived, chain: readonly Link[], channels: Axis, knowledge: Knowledge): Join | null {
  const { space } = site;
  for (const [place, at] of chain.entries()) {
    const node = joinOf(site, at, knowledge);
    if (node === null) continue;
    const fits =
      node.inputs.length === 2 &&
      at.axes.length === 4 &&
      axisAttribute(node, 0, 4) === 2 &&
      space.equal(at.axes[2]!, site.keys) &&
      space.equal(at.axes[3]!, channels) &&
      node.inputs.every((name) => knowledge.sizes(site.graph, name)?.length === 4);
    if (!fits) return null;
    const renames: GraphNode[] = [];
    for (let i = place; i > 0 && chain[i - 1]!.type === at.type; i--) {
      const next = at.graph.producer(chain[i - 1]!.name)!;
      if (!isOp(next, 'Identity', 'Cast')) break;
      renames.push(next);
    }
    const past = withoutEmptyParts(site, node.inputs[0]!, knowledge);
    return { nodes: [node, ...renames], past, fresh: node.inputs[1]!, axes: at.axes, at };
  }
  return null;
}

/** The value behind joins with nothing. */
function withoutEmptyParts(site: Derived, name: string, knowledge: Knowledge): string {
  const node = site.graph.producer(name);
  const part = node !== undefined && isOp(node, 'Concat') ? onlyPart(node, knowledge) : null;
  return part === null ? name : withoutEmptyParts(site, part, knowledge);
}

/**
 * The site as it is replaced: a present that nothing reads is not asked for. `null` where something that stays reads joined
 * rows before the operator yields them.
 * @param kept values of the model that the operator and the nodes around it will read
 */
export function freeJoins(
  site: Derived,
  kept: ReadonlySet<string>,
  others: readonly GraphNode[],
): Derived | null {
  const { past, graph, valueProduct } = site;
  if (past === null) return null;
  const dead = findDead(graph, [valueProduct, ...past.joins, ...others], kept);
  const isSorted = graph.ordered() === graph.nodes;
  let isRead = false;
  for (const name of past.joins.map((join) => join.outputs[0]!)) {
    const readers = graph.uses(name).filter((use) => !dead.has(use));
    const isLater = readers.every((reader) => isSorted && reader.index > valueProduct.index);
    const isNeeded = readers.length > 0 || graph.isOutput(name);
    if (kept.has(name) || !isLater) return null;
    if (isNeeded && name !== past.presentKey && name !== past.presentValue) return null;
    isRead ||= isNeeded;
  }
  return isRead ? site : { ...site, past: { ...past, presentKey: '', presentValue: '' } };
}
