/** Which nodes fall away when the outputs of some nodes are provided otherwise. */
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';

/**
 * Nodes that nobody needs any more once the `replaced` nodes are gone. Only nodes upstream of those are considered, so what
 * was unused before stays.
 * @param kept values that new nodes read
 */
export function findDead(
  graph: Graph,
  replaced: Iterable<GraphNode>,
  kept: ReadonlySet<string>,
): Set<GraphNode> {
  const dead = new Set<GraphNode>(replaced);
  const pending = [...dead];
  while (pending.length > 0) {
    const node = pending.pop()!;
    for (const name of readNames(node)) {
      const producer = graph.producer(name);
      if (producer === undefined || dead.has(producer) || !isUnneeded(graph, producer, dead, kept)) continue;
      dead.add(producer);
      pending.push(producer);
    }
  }
  return dead;
}

function isUnneeded(
  graph: Graph,
  node: GraphNode,
  dead: ReadonlySet<GraphNode>,
  kept: ReadonlySet<string>,
): boolean {
  return node.outputs.every(
    (name) =>
      name === '' ||
      (!kept.has(name) && !graph.isOutput(name) && graph.uses(name).every((use) => dead.has(use))),
  );
}

/** Names that the node or its bodies read. */
export function* readNames(node: GraphNode): Iterable<string> {
  yield* node.inputs;
  for (const body of node.subgraphs) {
    for (const inner of body.nodes) yield* readNames(inner);
    for (const output of body.outputs) yield output.name;
  }
}
