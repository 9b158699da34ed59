/** Attention whose products run on integers: it is recognised in order to be named, not to be replaced. */
import type { Knowledge } from '../graph/knowledge.js';
import { isOp, type GraphNode } from '../graph/node.js';
import type { Anchor } from './anchors.js';
import { isContraction } from './contraction.js';
import { findScorePaths, type ScoreSearch, type WeightPath } from './paths.js';

/** Second operand of the products on integers, by operator. */
const INTEGER_PRODUCTS: Readonly<Record<string, number>> = { MatMulInteger: 1, QLinearMatMul: 3 };

/**
 * The node that makes integers of a softmax's scores or weights, where the scores compare two computed tensors and the
 * weights go on to a product; `null` when it is no such attention.
 */
export function quantisingNode(
  anchor: Anchor,
  search: ScoreSearch,
  weights: WeightPath | null,
  knowledge: Knowledge,
): GraphNode | null {
  if (anchor.kind !== 'softmax') return null;
  const scores = search.ends.find((node) => comparesAsIntegers(node, knowledge));
  const isFloat = search.paths.some(({ product }) => comparesComputed(product.node, 1, knowledge));
  if (scores === undefined && !isFloat) return null;
  const rounding = anchor.graph.uses(anchor.weights).find((node) => isQuantising(node));
  if (weights === null && rounding === undefined) return null;
  return scores ?? rounding ?? null;
}

function comparesComputed(node: GraphNode, operand: number, knowledge: Knowledge): boolean {
  return [0, operand].every((at) => {
    const name = node.inputs[at];
    return name !== undefined && name !== '' && !knowledge.isConstant(node.graph, name);
  });
}

function comparesAsIntegers(node: GraphNode, knowledge: Knowledge): boolean {
  const operand = node.domain === '' ? INTEGER_PRODUCTS[node.opType] : undefined;
  if (operand !== undefined) return comparesComputed(node, operand, knowledge);
  if (!isOp(node, 'DequantizeLinear')) return false;
  const before = node.graph.producer(node.inputs[0]!);
  if (before === undefined) return false;
  if (isOp(before, 'QLinearMatMul')) return comparesComputed(before, 3, knowledge);
  if (!isOp(before, 'QuantizeLinear')) return false;
  const { paths, ends } = findScorePaths(node.graph, before.inputs[0]!, knowledge);
  return (
    paths.some(({ product }) => comparesComputed(product.node, 1, knowledge)) ||
    ends.some((end) => !isOp(end, 'DequantizeLinear') && comparesAsIntegers(end, knowledge))
  );
}

function isQuantising(node: GraphNode): boolean {
  if (!isOp(node, 'QuantizeLinear', 'DynamicQuantizeLinear')) return false;
  return node.graph.uses(node.outputs[0]!).some((use) => {
    if (use.domain === '' && use.opType in INTEGER_PRODUCTS) return true;
    return isOp(use, 'DequantizeLinear') && use.graph.uses(use.outputs[0]!).some(isContraction);
  });
}
