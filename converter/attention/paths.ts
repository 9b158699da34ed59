/**
 * The ways through the graph that matter to a site: from the activation back to products that could be the scores, and from
 * the weights on to the product with the values. Only the route is found here; what happens on it is derived elsewhere.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { isOp, type GraphNode } from '../graph/node.js';
import { isContraction, readContraction, type Contraction } from './contraction.js';

/** One node on a path, and which of its inputs the path enters by. */
export interface Step {
  readonly node: GraphNode;
  readonly input: number;
}

export interface ScorePath {
  readonly product: Contraction;
  /** From the product to the activation. */
  readonly steps: readonly Step[];
}

export interface WeightPath {
  readonly product: Contraction;
  /** Which operand of the product holds the weights. */
  readonly operand: 0 | 1;
  readonly steps: readonly Step[];
}

const MAX_STEPS = 48;
const MAX_VISITS = 400;

const SINGLE_INPUT: ReadonlySet<string> = new Set([
  'Identity',
  'Cast',
  'CastLike',
  'Dropout',
  'Reshape',
  'Transpose',
  'Squeeze',
  'Unsqueeze',
  'Flatten',
  'Expand',
  'Neg',
  'Tanh',
  'Clip',
  'Slice',
  'Div',
]);
const ANY_INPUT: ReadonlySet<string> = new Set(['Add', 'Sub', 'Mul', 'Max', 'Min', 'Sum']);

/** Inputs of a node through which scores may have come. */
function scoreInputs(node: GraphNode): number[] {
  if (node.domain !== '') return [];
  if (SINGLE_INPUT.has(node.opType)) return [0];
  if (ANY_INPUT.has(node.opType)) return node.inputs.map((_, i) => i);
  if (node.opType === 'Where') return [1, 2];
  if (node.opType === 'ScatterND') return [2];
  return [];
}

export interface ScoreSearch {
  readonly paths: readonly ScorePath[];
  /** Nodes where the search ended without a product. */
  readonly ends: readonly GraphNode[];
}

/** All routes back from the scores to matrix products, shortest first. */
export function findScorePaths(graph: Graph, scores: string, knowledge: Knowledge): ScoreSearch {
  const paths: ScorePath[] = [];
  const ends: GraphNode[] = [];
  let frontier: { name: string; steps: readonly Step[] }[] = [{ name: scores, steps: [] }];
  let visits = 0;
  for (let depth = 0; depth < MAX_STEPS && frontier.length > 0; depth++) {
    const next: typeof frontier = [];
    for (const { name, steps } of frontier) {
      if (++visits > MAX_VISITS) return { paths, ends };
      const node = graph.producer(name);
      if (node === undefined) continue;
      if (isContraction(node)) {
        const product = readContraction(node, knowledge);
        if (product !== null) paths.push({ product, steps });
        else ends.push(node);
        continue;
      }
      const inputs = scoreInputs(node);
      if (inputs.length === 0) ends.push(node);
      for (const input of inputs) {
        const value = node.inputs[input];
        if (value === undefined || value === '') continue;
        next.push({ name: value, steps: [{ node, input }, ...steps] });
      }
    }
    frontier = next;
  }
  return { paths, ends };
}

const WEIGHT_STEPS: ReadonlySet<string> = new Set([
  'Identity',
  'Cast',
  'CastLike',
  'Dropout',
  'Reshape',
  'Transpose',
  'Squeeze',
  'Unsqueeze',
  'Flatten',
  'Expand',
  'Clip',
  'Div',
  'Mul',
  'Max',
  'Min',
  'Where',
  'Trilu',
  'Add',
  'Sub',
]);

/** The nearest product that the weights take part in. */
export function findWeightPath(graph: Graph, weights: string, knowledge: Knowledge): WeightPath | null {
  let frontier: { name: string; steps: readonly Step[] }[] = [{ name: weights, steps: [] }];
  let visits = 0;
  for (let depth = 0; depth < MAX_STEPS && frontier.length > 0; depth++) {
    const next: typeof frontier = [];
    for (const { name, steps } of frontier) {
      for (const node of graph.uses(name)) {
        if (++visits > MAX_VISITS) return null;
        const input = node.inputs.indexOf(name);
        if (input < 0) continue;
        if (isContraction(node)) {
          const product = readContraction(node, knowledge);
          if (product !== null && input < 2 && node.inputs[1 - input] !== name) {
            return { product, operand: input === 0 ? 0 : 1, steps };
          }
          continue;
        }
        if (node.domain !== '' || !WEIGHT_STEPS.has(node.opType)) continue;
        if (isOp(node, 'Where') && input === 0) continue;
        if (isOp(node, 'Div', 'Trilu') && input === 1) continue;
        next.push({ name: node.outputs[0]!, steps: [...steps, { node, input }] });
      }
    }
    frontier = next;
  }
  return null;
}

const MAX_CHANGES = 12;

/**
 * The first operator on the way from weights to a product that the derivation cannot follow, where the scores compare two
 * computed tensors; `null` when no product is near.
 */
export function findChangingNode(
  { graph, weights }: { readonly graph: Graph; readonly weights: string },
  scores: readonly ScorePath[],
  knowledge: Knowledge,
): GraphNode | null {
  const isComparison = scores.some(({ product }) =>
    product.node.inputs.slice(0, 2).every((name) => !knowledge.isConstant(product.node.graph, name)),
  );
  if (!isComparison) return null;
  let frontier: { name: string; first: GraphNode | null }[] = [{ name: weights, first: null }];
  for (let depth = 0, visits = 0; depth < MAX_CHANGES; depth++) {
    const next: typeof frontier = [];
    for (const { name, first } of frontier) {
      for (const node of graph.uses(name)) {
        if (++visits > MAX_VISITS) return null;
        if (first !== null && isContraction(node) && node.inputs.indexOf(name) < 2) return first;
        if (isOp(node, 'Shape', 'Size') || node.subgraphs.length > 0) continue;
        const follows = node.domain === '' && WEIGHT_STEPS.has(node.opType);
        for (const output of node.outputs)
          next.push({ name: output, first: first ?? (follows ? null : node) });
      }
    }
    frontier = next;
  }
  return null;
}
