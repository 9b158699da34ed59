/** Attention that is one operator already: ONNX Attention and the contrib operators of ONNX Runtime. */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import type { GraphNode } from '../graph/node.js';

export interface FusedSite {
  readonly node: GraphNode;
}

export function findFused(_graph: Graph, _knowledge: Knowledge): FusedSite[] {
  return [];
}
