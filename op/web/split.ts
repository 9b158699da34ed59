/**
 * Cuts a graph at its SigmoidAttention nodes into as few pieces as the data flow allows. Stage s holds every node that
 * depends on s attention nodes in a row, and after it the attention nodes whose inputs are then complete.
 */

import type { Graph } from '../../converter/graph/graph.js';
import type { GraphNode } from '../../converter/graph/node.js';
import { DOMAIN, OP_TYPE } from '../schema.js';

/** Nodes that become one ordinary session. */
export interface Piece {
  /** In the order of the model. */
  readonly nodes: readonly GraphNode[];
  readonly initializers: readonly string[];
  /** Values that come from elsewhere. */
  readonly inputs: readonly string[];
  /** Values that something else reads. */
  readonly outputs: readonly string[];
}

export interface Stage {
  readonly piece: Piece | undefined;
  readonly attention: readonly GraphNode[];
}

export interface Split {
  readonly stages: readonly Stage[];
  /** For each value that stages hand on, the last stage that reads it; graph outputs are read by none after the last. */
  readonly lastReader: ReadonlyMap<string, number>;
  /** Values that an attention node reads. */
  readonly attentionInputs: ReadonlySet<string>;
}

export const isAttention = (node: GraphNode): boolean => node.domain === DOMAIN && node.opType === OP_TYPE;

/** Constants are repeated in every piece that reads them. */
const isConstant = (node: GraphNode): boolean => node.domain === '' && node.opType === 'Constant';

export function splitAtAttention(graph: Graph): Split {
  const reads = readsOfNodes(graph);
  const stageOf = stagesOfNodes(graph, reads);
  const count =
    1 + Math.max(0, ...graph.nodes.map((node) => stageOf.get(node)! + (isAttention(node) ? 1 : 0)));
  const placed: GraphNode[][] = Array.from({ length: count }, () => []);
  const attention: GraphNode[][] = Array.from({ length: count }, () => []);
  for (const node of graph.nodes) {
    if (isAttention(node)) attention[stageOf.get(node)!]!.push(node);
    else if (!isConstant(node)) placed[stageOf.get(node)!]!.push(node);
  }
  const attentionInputs = new Set(attention.flat().flatMap((node) => [...reads.get(node)!]));
  const contents = placed.map((nodes, stage) =>
    withConstants(graph, nodes, reads, stage === 0 ? graph.outputs.map(({ name }) => name) : []),
  );
  const needs = contents.map((nodes) => neededBy(nodes, reads));
  const stages = contents.map((nodes, stage): Stage => {
    const own = new Set(nodes.flatMap(({ outputs }) => outputs));
    const readElsewhere = (name: string): boolean =>
      graph.isOutput(name) ||
      attentionInputs.has(name) ||
      needs.some((names, other) => other !== stage && names.has(name));
    const isStored = (name: string): boolean => graph.initializers.has(name);
    // An output that no node yields is an initializer; the first piece returns it.
    const stored = stage === 0 ? graph.outputs.map(({ name }) => name).filter(isStored) : [];
    const initializers = [...new Set([...[...needs[stage]!].filter(isStored), ...stored])];
    const constants = new Set(nodes.filter(isConstant).flatMap(({ outputs }) => outputs));
    const outputs = [
      ...[...own].filter(
        (name) =>
          name !== '' && (constants.has(name) ? stage === 0 && graph.isOutput(name) : readElsewhere(name)),
      ),
      ...stored,
    ];
    const inputs = [...needs[stage]!].filter((name) => !own.has(name) && !isStored(name));
    const piece = outputs.length === 0 ? undefined : { nodes, initializers, inputs, outputs };
    return { piece, attention: attention[stage]! };
  });
  return {
    stages: stages.filter(isUsed),
    lastReader: lastReaders(stages.filter(isUsed), reads),
    attentionInputs,
  };
}

const isUsed = ({ piece, attention }: Stage): boolean => piece !== undefined || attention.length > 0;

/** All names that a node reads, those that its bodies take from around it included. */
function readsOfNodes(graph: Graph): Map<GraphNode, Set<string>> {
  const reads = new Map(graph.nodes.map((node) => [node, new Set<string>()]));
  for (const name of new Set(graph.names())) for (const node of graph.uses(name)) reads.get(node)?.add(name);
  return reads;
}

function stagesOfNodes(graph: Graph, reads: ReadonlyMap<GraphNode, Set<string>>): Map<GraphNode, number> {
  const stageOf = new Map<GraphNode, number>();
  for (const node of graph.nodes) {
    let stage = 0;
    for (const name of reads.get(node)!) {
      const producer = graph.producer(name);
      if (producer === undefined) continue;
      const ready = stageOf.get(producer);
      if (ready === undefined)
        throw new Error(
          `node '${node.name}' reads '${name}' before it is computed; the nodes must be sorted`,
        );
      stage = Math.max(stage, ready + (isAttention(producer) ? 1 : 0));
    }
    stageOf.set(node, stage);
  }
  return stageOf;
}

/** The nodes and the constants that they or the given values need, in the order of the model. */
function withConstants(
  graph: Graph,
  nodes: readonly GraphNode[],
  reads: ReadonlyMap<GraphNode, Set<string>>,
  values: readonly string[],
): GraphNode[] {
  const all = new Set(nodes);
  for (const name of [...nodes.flatMap((node) => [...reads.get(node)!]), ...values]) {
    const producer = graph.producer(name);
    if (producer !== undefined && isConstant(producer)) all.add(producer);
  }
  return [...all].sort((a, b) => a.index - b.index);
}

function neededBy(nodes: readonly GraphNode[], reads: ReadonlyMap<GraphNode, Set<string>>): Set<string> {
  return new Set(nodes.flatMap((node) => [...reads.get(node)!]));
}

function lastReaders(
  stages: readonly Stage[],
  reads: ReadonlyMap<GraphNode, Set<string>>,
): ReadonlyMap<string, number> {
  const last = new Map<string, number>();
  stages.forEach(({ piece, attention }, stage) => {
    for (const name of piece?.inputs ?? []) last.set(name, stage);
    for (const node of attention) for (const name of reads.get(node)!) last.set(name, stage);
  });
  return last;
}
