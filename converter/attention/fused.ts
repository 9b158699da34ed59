/**
 * Attention that is one operator already: ONNX Attention (opset 23 and later) and contrib operators of ONNX Runtime. Each is
 * read into the same normal form as a spelled-out site, so that decision and rewriting are shared.
 */
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import { readContrib } from './contrib/contrib.js';
import type { FusedReader } from './fused-call.js';
import { readOnnxAttention } from './onnx-attention.js';

/** The reader for a fused operator; `null` when the node is none. */
export function fusedReader(node: GraphNode): FusedReader | null {
  if (node.domain === '' && node.opType === 'Attention') return readOnnxAttention;
  return node.domain === 'com.microsoft' ? readContrib(node.opType) : null;
}

export function findFused(graph: Graph): GraphNode[] {
  return graph.nodes.filter((node) => fusedReader(node) !== null);
}
