/** What weights are divided by: their sum over some axes, with or without a guard against division by zero. */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { checkedAxis, type GraphNode, intsAttribute, isOp } from '../graph/node.js';

/** The producer of a value, looking through Identity, Cast and Dropout. */
export function producerThrough(graph: Graph, name: string): GraphNode | undefined {
  let node = graph.producer(name);
  while (node !== undefined && isOp(node, 'Identity', 'Cast', 'Dropout'))
    node = graph.producer(node.inputs[0]!);
  return node;
}

/** Axes that a reduction sums over. */
export function reducedAxes(node: GraphNode, knowledge: Knowledge): number[] | null {
  const rank = knowledge.sizes(node.graph, node.inputs[0]!)?.length;
  if (rank === undefined) return null;
  const given = node.inputs[1]
    ? knowledge.values(node.graph, node.inputs[1])?.[0]?.data
    : intsAttribute(node, 'axes');
  if (!given) return null;
  return Array.from(given, (axis) => checkedAxis(node, axis, rank));
}

/** A denominator's constant addend up to this size only guards against division by zero. */
const LARGEST_EPSILON = 1e-5;

export interface Denominator {
  readonly sum: GraphNode;
  readonly plusOne: boolean;
}

/** Follows a denominator of weights, which are not negative, to the sum behind it: through Expand, guards against 0, and a constant addend. */
export function denominator(graph: Graph, name: string, knowledge: Knowledge): Denominator | null {
  let current = name;
  let plusOne = false;
  for (let depth = 0; depth < 8; depth++) {
    const node = graph.producer(current);
    if (node === undefined) return null;
    if (isOp(node, 'ReduceSum', 'ReduceL1')) return { sum: node, plusOne };
    if (isOp(node, 'Expand', 'Identity', 'Cast', 'Unsqueeze', 'Reshape')) current = node.inputs[0]!;
    else if (isOp(node, 'Add', 'Max', 'Clip')) {
      const constants = node.inputs.map((input) => (input === '' ? null : knowledge.number(graph, input)));
      const value = isOp(node, 'Clip')
        ? (constants[1] ?? 0)
        : constants.find((constant) => constant !== null);
      if (value === undefined) {
        plusOne = true;
        current = node.inputs[graph.producer(node.inputs[0]!) === undefined ? 1 : 0]!;
        continue;
      }
      if (value === null || value > LARGEST_EPSILON || value < 0) plusOne = true;
      current = node.inputs[constants[0] === null || constants[0] === undefined ? 0 : 1]!;
    } else return null;
  }
  return null;
}
