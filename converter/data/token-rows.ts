/** How many rows the table has that an integer input picks from, so that made-up token ids are in range. */
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';

/** Operators that pass every index on unchanged. */
const PASSING = new Set([
  'Cast',
  'Identity',
  'Reshape',
  'Unsqueeze',
  'Squeeze',
  'Flatten',
  'Transpose',
  'Slice',
  'Expand',
]);

/** The smallest table that the input indexes; `undefined` where none is found. */
export function tokenRows(graph: Graph, input: string): number | undefined {
  let rows: number | undefined;
  const open = [input];
  const seen = new Set(open);
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    for (const node of graph.uses(name)) {
      const table = tableRows(graph, node, name);
      if (table !== undefined) rows = Math.min(rows ?? Infinity, table);
      if (!PASSING.has(node.opType) || node.inputs[0] !== name) continue;
      for (const output of node.outputs) if (!seen.has(output)) open.push(output);
      node.outputs.forEach((output) => seen.add(output));
    }
  }
  return rows;
}

function tableRows(graph: Graph, node: GraphNode, index: string): number | undefined {
  if (node.opType !== 'Gather' || node.inputs[1] !== index) return undefined;
  const table = graph.initializers.get(node.inputs[0]!) ?? beforeQuantisation(graph, node.inputs[0]!);
  return table?.dims[0];
}

function beforeQuantisation(graph: Graph, name: string): { dims: readonly number[] } | undefined {
  const producer = graph.producer(name);
  if (producer?.opType !== 'DequantizeLinear' && producer?.opType !== 'Cast') return undefined;
  return graph.initializers.get(producer.inputs[0]!);
}
