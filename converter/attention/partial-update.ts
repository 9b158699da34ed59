/**
 * Scores of which a part is cut out, added to and written back (`scores[:, :, 1:, 1:] += bias`). What comes out is the scores
 * plus something that does not depend on them: what the same nodes make of zeros.
 */
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { isOp, nodeLabel, type GraphNode } from '../graph/node.js';
import { numeric, type NumericTensor } from '../graph/numeric.js';
import { DataType } from '../onnx/tensor.js';
import type { Axes } from './layout.js';
import type { Step } from './paths.js';

/** Terms that are added to the scores by working nodes of the model out on zeros. */
export interface PartialTerms {
  /** The value to be made; the model has none of this name. */
  readonly name: string;
  readonly source: string;
  readonly result: string;
  /** From source to result, in order. */
  readonly nodes: readonly GraphNode[];
  readonly axes: Axes;
}

export interface PartialUpdate {
  readonly terms: Omit<PartialTerms, 'axes'>;
  /** Place of the last step that belongs to it. */
  readonly last: number;
}

/** With these the result is linear in scores and terms. */
const LINEAR = [
  'Slice',
  'Reshape',
  'Transpose',
  'Squeeze',
  'Unsqueeze',
  'Flatten',
  'Identity',
  'Add',
  'Sub',
  'ScatterND',
];

/** Steps after the last ScatterND that may undo a transposition. */
const MAX_TRAILING = 2;

/** The update that begins with the given step; `null` where none does, or the scores do not come out as they went in. */
export function partialUpdate(
  steps: readonly Step[],
  at: number,
  knowledge: Knowledge,
): PartialUpdate | null {
  const first = steps[at]!.node;
  const last = steps.findLastIndex(({ node }) => isOp(node, 'ScatterND'));
  if (!isOp(first, 'Slice') || last < at) return null;
  const { graph } = first;
  const source = first.inputs[0]!;
  const [before, after] = [source, first.outputs[0]!].map((name) => knowledge.sizes(graph, name)?.join());
  if (before === after) return null;
  for (let end = last; end <= Math.min(last + MAX_TRAILING, steps.length - 1); end++) {
    const result = steps[end]!.node.outputs[0]!;
    const nodes = nodesBetween(graph, source, result);
    if (nodes === null || !keepsScores(graph, source, result, nodes, knowledge)) continue;
    let name = `${nodeLabel(first)}/terms`;
    while (graph.definer(name) !== null) name += '_';
    return { terms: { name, source, result, nodes }, last: end };
  }
  return null;
}

/** Nodes from source to result, in order; `null` when one of them is not linear. */
function nodesBetween(graph: Graph, source: string, result: string): GraphNode[] | null {
  const depends = new Map<string, boolean>([[source, true]]);
  const nodes = new Set<GraphNode>();
  let isLinear = true;
  const visit = (name: string): boolean => {
    const known = depends.get(name);
    if (known !== undefined) return known;
    depends.set(name, false);
    const node = graph.producer(name);
    if (node === undefined || isOp(node, 'Shape') || graph.rank(node) < firstRank) return false;
    const found = node.inputs.map((input) => input !== '' && visit(input)).includes(true);
    depends.set(name, found);
    if (!found) return false;
    if (!isOp(node, ...LINEAR)) isLinear = false;
    nodes.add(node);
    return true;
  };
  const producer = graph.producer(source);
  const firstRank = producer === undefined ? 0 : graph.rank(producer);
  return visit(result) && isLinear ? [...nodes].sort((a, b) => graph.rank(a) - graph.rank(b)) : null;
}

/** Every score comes out with what is added to it, which is the same whatever the scores are. */
function keepsScores(
  graph: Graph,
  source: string,
  result: string,
  nodes: readonly GraphNode[],
  knowledge: Knowledge,
): boolean {
  const made = new Set([source, ...nodes.flatMap(({ outputs }) => outputs)]);
  const terms = new Set(
    nodes.flatMap(({ inputs }) => inputs.filter((name) => name !== '' && !made.has(name))),
  );
  return knowledge.environments.every((environment) => {
    const tensor = (name: string, value: (at: number) => number): NumericTensor | null => {
      const dims = environment.dims(graph, name);
      if (dims === null) return null;
      const count = dims.reduce((product, dim) => product * dim, 1);
      return numeric(
        DataType.float,
        dims,
        Float64Array.from({ length: count }, (_, i) => value(i)),
      );
    };
    const given = new Map<string, NumericTensor>();
    for (const name of terms) {
      if (environment.value(graph, name) !== null) continue;
      const zeros = tensor(name, () => 0);
      if (zeros === null) return false;
      given.set(name, zeros);
    }
    const evaluated = (value: (at: number) => number): NumericTensor | null => {
      const scores = tensor(source, value);
      return scores && environment.evaluate(graph, result, new Map([...given, [source, scores]]));
    };
    const numbered = evaluated((i) => i + 1);
    const still = evaluated(() => 0);
    const dims = environment.dims(graph, source);
    return (
      numbered !== null &&
      still !== null &&
      numbered.dims.join() === dims?.join() &&
      numbered.data.every((value, i) => Math.abs(value - still.data[i]! - (i + 1)) < 0.5)
    );
  });
}
