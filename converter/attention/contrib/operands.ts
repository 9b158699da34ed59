/** Links, sizes and the scale of a contrib operator: what its readers work out from inputs and attributes alike. */
import type { Size } from '../../graph/knowledge.js';
import { floatAttribute, type GraphNode } from '../../graph/node.js';
import type { Link } from '../chains.js';
import { unsupported } from '../fused-call.js';
import type { Axis } from '../layout.js';

export function link(node: GraphNode, name: string, axes: readonly Axis[], type: number): Link {
  return { name, graph: node.graph, axes, type, factor: 1, passed: [] };
}

export function uniform(value: number, like: Size): Size {
  return like.map(() => value);
}

export function divided(size: Size, by: number, node: GraphNode): Size {
  if (size.some((value) => value % by !== 0))
    throw unsupported(node, `has ${size[0]} features for ${by} heads`);
  return size.map((value) => value / by);
}

export function scaleOf(node: GraphNode, headSize: number): number {
  const scale = floatAttribute(node, 'scale', 0);
  return scale === 0 ? 1 / Math.sqrt(headSize) : scale;
}
