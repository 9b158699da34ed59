/** Keys and values of earlier calls: a concatenation along the positions on the way to the site. */
import { axisAttribute, isOp } from '../graph/node.js';
import type { Link } from './chains.js';
import type { Derived } from './derive.js';

/** The keys hold a past, joined to the present ones by a Concat along the key positions. */
export function hasPast(site: Derived): boolean {
  return Boolean(site.past?.key) || site.key.some((link) => joinsPositions(site, link));
}

function joinsPositions(site: Derived, link: Link): boolean {
  const node = link.graph.producer(link.name);
  if (node === undefined || !isOp(node, 'Concat')) return false;
  const axis = site.space.resolve(link.axes[axisAttribute(node, 0, link.axes.length)]!);
  const keys = site.space.resolve(site.keys);
  return axis.length > 0 && axis.every((atom) => keys.includes(atom));
}
